"""Errors as the OpenAI API gives them: a status, and JSON with message, type, param and code."""

from collections.abc import Mapping

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """What a client is told.

    param: the field of the request that is wrong, such as `messages[0].content`
    code: a word for programs
    headers: of the answer, beside the usual ones
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict:
        kind = "server_error" if self.status >= 500 else TYPES.get(self.status, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def invalid(param: str, message: str, code: str | None = "invalid_value") -> ApiError:
    """A request whose field `param` makes no sense: 400."""
    return ApiError(400, message, param, code)


def too_busy(message: str, retry_seconds: int) -> ApiError:
    """No room for another request now: 429 with Retry-After."""
    return ApiError(429, message, code="queue_full", headers={"retry-after": str(retry_seconds)})


def internal(request_id: str) -> ApiError:
    """A failure of ours; what happened stands in the log alone."""
    return ApiError(
        500, f"internal error; the server's log has it under id {request_id}", code="internal_error"
    )
