"""Answers as the OpenAI API writes them: objects and chunks of a stream."""

import time
from typing import Any

from ..answer import Answer


def new_head(kind: str, request_id: str, model: str) -> dict[str, Any]:
    """What every object of one answer begins with."""
    return {"id": f"chatcmpl-{request_id}", "object": kind, "created": int(time.time()), "model": model}


def chat_completion(request_id: str, model: str, answer: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
    head = new_head("chat.completion", request_id, model)
    return head | {"choices": [choice], "usage": chat_usage(answer), "ltbm": details(answer)}


def chunk(head: dict[str, Any], delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    """One piece of a streamed chat completion."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return head | {"choices": [choice]}


def chat_usage(answer: Answer) -> dict[str, Any]:
    """`audio_tokens` are those that the LLM read, `cached_tokens` those that the KV cache held."""
    return {
        "prompt_tokens": len(answer.prompt_token_ids),
        "completion_tokens": len(answer.token_ids),
        "total_tokens": len(answer.prompt_token_ids) + len(answer.token_ids),
        "prompt_tokens_details": {
            "audio_tokens": answer.tokens_out,
            "cached_tokens": answer.reused_tokens,
        },
    }


def transcription_usage(answer: Answer) -> dict[str, Any]:
    prompt = len(answer.prompt_token_ids)
    return {
        "type": "tokens",
        "input_tokens": prompt,
        "input_token_details": {
            "audio_tokens": answer.tokens_out,
            "text_tokens": prompt - answer.tokens_out,
        },
        "output_tokens": len(answer.token_ids),
        "total_tokens": prompt + len(answer.token_ids),
    }


def details(answer: Answer) -> dict[str, Any]:
    """What ltbm adds: the level as it was applied, the language of the speech where the model says it, and
    where the time went, in milliseconds."""
    language = {"language": answer.language} if answer.language else {}
    return language | {
        "level": answer.level,
        "audio_tokens_in": answer.tokens_in,
        "audio_tokens_out": answer.tokens_out,
        "reused_tokens": answer.reused_tokens,
        "applied": answer.applied,
        "reason": answer.reason,
        "timings": {stage: round(ms, 3) for stage, ms in answer.timings.items()},
    }
