import json

import pytest

from ltbm.profiles.quality.items import Item, check_item, import_items, item_line, parse_item, read_items

CAPTION = {"id": "1", "audio": "1.wav", "references": ["a dog barks"]}
QUESTION = CAPTION | {
    "references": ["Man"],
    "question": "Who speaks?",
    "choices": ["Man", "Child"],
    "group": "speech",
}


@pytest.fixture
def write(tmp_path):
    """(name, text) -> the file's path; audio files only have to exist."""

    def make(name: str, text: str = ""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return make


def manifest(write, *records):
    return write("items.jsonl", "\n".join(json.dumps(record) for record in records) + "\n")


def test_a_manifest_is_read_with_audio_beside_it(write):
    audio = write("1.wav")
    (item,) = read_items(manifest(write, QUESTION), "mcq")
    assert item == Item("1", str(audio), ("Man",), "Who speaks?", ("Man", "Child"), "speech")


def test_an_item_survives_its_line(write):
    """U+2028 ends a line for some readers, not for JSON lines."""
    item = parse_item(json.dumps(QUESTION | {"question": 'say \u2028 "what"?', "audio": str(write("1.wav"))}))
    assert read_items(write("items.jsonl", item_line(item) + "\r\n"), "mcq") == [item]


@pytest.mark.parametrize(
    "benchmark,change,words",
    [
        ("caption", {"references": []}, "no reference caption"),
        ("caption", {"references": "a dog barks"}, "lists of strings"),
        ("caption", {"captions": ["x"]}, "unknown here: \\['captions'\\]"),
        ("caption", {"references": [""]}, "not empty"),
        ("asr", {"references": ["a", "b"]}, "asr takes one"),
        ("mcq", {"choices": ["Man"]}, "at least two choices"),
        ("mcq", {"references": ["Robot"]}, "among them"),
        ("mcq", {"question": ""}, "a question"),
    ],
)
def test_items_that_do_not_fit_are_refused_by_line(write, benchmark, change, words):
    write("1.wav")
    with pytest.raises(ValueError, match=f"line 2: .*{words}"):
        read_items(manifest(write, QUESTION | {"id": "0"}, QUESTION | change), benchmark)


def test_double_ids_and_missing_audio_are_refused(write):
    write("1.wav")
    with pytest.raises(ValueError, match="two items '1'"):
        read_items(manifest(write, CAPTION, CAPTION), "caption")
    with pytest.raises(FileNotFoundError, match="item '2'.*2.wav"):
        read_items(manifest(write, CAPTION, CAPTION | {"id": "2", "audio": "2.wav"}), "caption")
    with pytest.raises(ValueError, match="no items"):
        read_items(write("empty.jsonl"), "caption")


def test_audiocaps_joins_the_captions_of_a_clip_and_finds_it_by_any_name(write):
    rows = [
        "audiocap_id,youtube_id,start_time,caption",
        '11,-aB,30,"Food is frying, and a woman talks"',
        "12,cD_,0,A horn",
        "13,-aB,30,A pan",
        "14,eF,5,Rain",
    ]
    source = write("test.csv", "\n".join(rows) + "\n")
    write("clips/-aB_30.flac"), write("clips/YcD_.wav")
    items, missing = import_items("audiocaps", source, source.parent / "clips")
    assert [(item.id, item.references) for item in items] == [
        ("-aB_30", ("Food is frying, and a woman talks", "A pan")),
        ("cD__0", ("A horn",)),
    ]
    assert [item.audio.rsplit("/", 1)[1] for item in items] == ["-aB_30.flac", "YcD_.wav"] and missing == [
        "eF_5"
    ]


def test_clotho(write):
    columns = "file_name," + ",".join(f"caption_{i}" for i in range(1, 6))
    source = write("clotho.csv", f"\ufeff{columns}\nToy rattle 2.wav,a,b,c,d,e\n")
    write("Toy rattle 2.wav")
    items, missing = import_items("clotho", source)
    assert items[0].references == ("a", "b", "c", "d", "e") and not missing


def test_mmau(write):
    record = {
        "id": "3f",
        "audio_id": "./test-mini-audios/3f.wav",
        "question": "Who?",
        "choices": ["Man", "Woman"],
        "answer": "Man",
        "task": "sound",
        "difficulty": "hard",
    }
    source = write("mmau.json", json.dumps([record]))
    assert import_items("mmau", source) == ([], ["./test-mini-audios/3f.wav"])
    write("test-mini-audios/3f.wav")
    (item,), _ = import_items("mmau", source)
    assert check_item(item, "mcq") and (item.group, item.references) == ("sound", ("Man",))
    del record["answer"]
    with pytest.raises(ValueError, match="lacks answer.*withheld"):
        import_items("mmau", write("test.json", json.dumps([record])))


def test_librispeech(write):
    write("61/70968/61-70968.trans.txt", "61-70968-0000 HE BEGAN\n61-70968-0001 GIVE NOT SO\n")
    source = write("61/70968/61-70968-0000.flac").parents[2]
    items, missing = import_items("librispeech", source)
    assert [(item.id, item.references) for item in items] == [("61-70968-0000", ("HE BEGAN",))]
    assert missing == ["61/70968/61-70968-0001"]


def test_a_layout_of_other_columns_is_refused(write):
    with pytest.raises(ValueError, match="no column file_name, caption_1, .*its columns are file, text"):
        import_items("clotho", write("other.csv", "file,text\na,b\n"))
    with pytest.raises(FileNotFoundError, match="a CSV with file_name"):
        import_items("clotho", "none.csv")
