"""What the service accepts before it refuses."""

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Bounds on what one request and all requests together may take.

    The answers of the service follow from them: 413 for an image that is too large, 408 for a body that arrives too
    slowly, 429 for a client with too many requests at once, and 503 where all clients together exceed what the machine
    can do in time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    body_mib: float = Field(default=20, gt=0, description="largest body of a request, in MiB")
    pixels: int = Field(default=50_000_000, ge=1, description="most pixels of an image")
    requests: int = Field(default=64, ge=1, description="requests at once, of all clients")
    client_requests: int = Field(default=32, ge=1, description="requests at once of one client, told by its address")
    waiting: int = Field(default=32, ge=1, description="images that wait for the network, for each artifact")
    body_seconds: float = Field(default=10, gt=0, description="time for a body to arrive")
    seconds: float = Field(default=30, gt=0, description="time until the answer is ready")

    @property
    def body_bytes(self) -> int:
        return int(self.body_mib * (1 << 20))

    @property
    def connections(self) -> int:
        """Connections at once: more than requests, so that a probe gets through while all of these are in use."""
        return 4 * self.requests + 32
