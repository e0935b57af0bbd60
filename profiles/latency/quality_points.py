"""Quality of each method and level, from a results.json of `ltbm eval`."""


def quality_points(results: dict) -> tuple[str, dict[str, dict[str, float]]]:
    """(its main figure's name, method -> level -> percent) of a results.json, in the default modes."""
    modes = {"positions": "original", "attention": "proportional"}
    rows = [
        row
        for row in results.get("rows", [])
        if all(row.get(name, default) == default for name, default in modes.items())
    ]
    figures = [name for row in rows[:1] for name, value in row.items() if isinstance(value, float)]
    figure = next((name for name in (results.get("metric"), "event_f1", *figures) if name in figures), None)
    if figure is None:
        raise ValueError("the quality file has no rows with figures; give the results.json of `ltbm eval`")
    points = {
        method: {
            row["level"]: 100 * row[figure]
            for row in rows
            if row["method"] == method or row["level"] == "full"
        }
        for method in dict.fromkeys(row["method"] for row in rows)
    }
    return figure.replace("_", " "), points
