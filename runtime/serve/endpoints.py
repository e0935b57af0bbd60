"""The endpoints that answer with the model: chat completions and transcriptions."""

from ..answer import Answer
from ..request import Request
from .answers import (
    chat_completion,
    chat_usage,
    chunk,
    details,
    new_head,
    transcription_usage,
)
from .bodies import read_form, read_json
from .chat import ChatRequest, read_chat
from .exchange import Exchange
from .job import Job
from .server import Server
from .transcriptions import TranscriptionRequest, read_transcription, verbose

DONE = b"[DONE]"


async def chat_completions(server: Server, exchange: Exchange) -> None:
    """`POST /v1/chat/completions`."""
    with server.engine.admit(exchange.id) as job:
        body = await exchange.body(server.settings.limits)
        wanted, request, _ = await server.loader.run(_read_chat, server, exchange, job, body)
        del body  # as large as the audio
        job.submit(request, server.settings.limits.queue_seconds)
        if wanted.stream:
            await _stream_chat(exchange, wanted, job)
        else:
            answer = await job.finish()
            exchange.note = note_of(answer)
            await exchange.send_json(chat_completion(exchange.id, wanted.model, answer))


def _read_chat(
    server: Server, exchange: Exchange, job: Job, body: bytes
) -> tuple[ChatRequest, Request, float]:
    """In a thread of the loader: what is wanted, the request with its audio, and the seconds of that."""
    fields = read_json(body, exchange.content_type)
    wanted = read_chat(fields, server.settings)
    return wanted, *server.prepare(job, wanted, wanted.audios)


async def _stream_chat(exchange: Exchange, wanted: ChatRequest, job: Job) -> None:
    """Chunks as server-sent events; the first waits for a token, so that an error has its status."""
    head = new_head("chat.completion.chunk", exchange.id, wanted.model)
    if wanted.include_usage:
        head["usage"] = None
    delta = {"role": "assistant"}
    async for piece in job.pieces():
        await exchange.send_event(chunk(head, {**delta, "content": piece}))
        delta = {}
    answer = job.answer
    exchange.note = note_of(answer)
    last = chunk(head, delta, answer.finish_reason) | {"ltbm": details(answer)}
    await exchange.send_event(last)
    if wanted.include_usage:
        await exchange.send_event(head | {"choices": [], "usage": chat_usage(answer)})
    await exchange.end_events(DONE)


async def transcriptions(server: Server, exchange: Exchange) -> None:
    """`POST /v1/audio/transcriptions`."""
    with server.engine.admit(exchange.id) as job:
        body = await exchange.body(server.settings.limits)
        wanted, request, seconds = await server.loader.run(_read_transcription, server, exchange, job, body)
        del body
        job.submit(request, server.settings.limits.queue_seconds)
        if wanted.stream:
            await _stream_transcription(exchange, job)
        else:
            answer = await job.finish()
            exchange.note = note_of(answer)
            await _send_transcription(exchange, wanted, answer, seconds)


def _read_transcription(
    server: Server, exchange: Exchange, job: Job, body: bytes
) -> tuple[TranscriptionRequest, Request, float]:
    """As `_read_chat`."""
    wanted = read_transcription(read_form(body, exchange.content_type), server.settings)
    return wanted, *server.prepare(job, wanted, [wanted.audio])


async def _stream_transcription(exchange: Exchange, job: Job) -> None:
    async for piece in job.pieces():
        await exchange.send_event({"type": "transcript.text.delta", "delta": piece})
    answer = job.answer
    exchange.note = note_of(answer)
    done = {"type": "transcript.text.done", "text": answer.text, "usage": transcription_usage(answer)}
    await exchange.send_event(done | {"ltbm": details(answer)})
    await exchange.end_events(DONE)


async def _send_transcription(
    exchange: Exchange, wanted: TranscriptionRequest, answer: Answer, seconds: float
) -> None:
    if wanted.response_format == "text":
        await exchange.send(200, "text/plain; charset=utf-8", f"{answer.text}\n".encode())
        return
    body = {"text": answer.text}
    if wanted.response_format == "verbose_json":
        body = verbose(answer.text, seconds, answer.language or wanted.language)
    await exchange.send_json(body | {"usage": transcription_usage(answer), "ltbm": details(answer)})


def note_of(answer: Answer) -> str:
    """An answer's figures for the log."""
    times = answer.timings
    return (
        f"level={answer.level} audio_tokens={answer.tokens_in}->{answer.tokens_out} "
        f"prompt_tokens={len(answer.prompt_token_ids)} reused={answer.reused_tokens} "
        f"tokens={len(answer.token_ids)} finish={answer.finish_reason} "
        f"queue_ms={times['queue']:.0f} ttft_ms={times['ttft']:.0f} total_ms={times['total']:.0f}"
    )
