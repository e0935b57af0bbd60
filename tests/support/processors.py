"""transformers' own processors, asked as each model's page says."""


def processed(processor, family: str, clips: list, prompt: str) -> dict:
    """The model's inputs for one user turn: input_ids, features and their mask."""
    audios = [{"type": "audio"}] * len(clips)
    conversation = [{"role": "user", "content": [*audios, {"type": "text", "text": prompt}]}]
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    return dict(processor(text=[text], audio=clips, sampling_rate=16_000, return_tensors="pt"))
