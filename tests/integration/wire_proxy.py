"""TCP proxies that know HTTP/2 frames: before a worker one that lets so many
steps through to the gateway, holds the rest, and cuts the connection; before a
later stage one that holds, changes, truncates and cuts what comes from the
first."""

import asyncio
import collections

_PREFACE = 24  # bytes of a connection before its frames
_FRAME_HEADER = 9
_HIDDEN = 1024  # bytes of a token's residual stream in the demo model
_DATA = 0
_STEP = 2  # SessionResponse.step
_TOKENS = 3  # StepOutput.tokens
_CHOICE = 2  # TokenRecord.choice


class WireProxy:
    """Runs in the event loop that made it."""

    def __init__(self):
        self.upstream = None  # HOST:PORT, once it is known
        self.address = None
        self.steps_left = None  # None: all may pass
        self.passed = collections.Counter()  # tokens by choice, since then
        self.held = asyncio.Event()  # a step waits here
        self._release = asyncio.Event()
        self._writers = set()
        self._tasks = set()
        self._server = None

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"

    def hold_after(self, steps):
        """The connection's next steps after so many are held back."""
        self.steps_left = steps
        self.passed.clear()
        self.held.clear()
        self._release.clear()

    def let_all_pass(self):
        self.steps_left = None
        self._release.set()

    def cut(self):
        """Breaks all connections; what is held is lost."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self.let_all_pass()

    async def stop(self):
        """Cuts all, and waits for what served it."""
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        host, port = self.upstream.rsplit(":", 1)
        try:
            up_reader, up_writer = await asyncio.open_connection(host,
                                                                 int(port))
        except OSError:
            writer.close()
            return
        self._writers |= {writer, up_writer}
        await asyncio.gather(self._forward(reader, up_writer),
                             self._forward_frames(up_reader, writer),
                             return_exceptions=True)
        for end in (writer, up_writer):
            self._writers.discard(end)
            end.close()

    async def _forward(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()

    async def _forward_frames(self, reader, writer):
        try:
            while True:
                header = await reader.readexactly(_FRAME_HEADER)
                size = int.from_bytes(header[:3], "big")
                payload = await reader.readexactly(size)
                if header[3] == _DATA and self.steps_left is not None:
                    await self._count(payload)
                writer.write(header + payload)
                await writer.drain()
        finally:
            writer.transport.abort()

    async def _count(self, payload):
        steps = steps_of(payload)
        if not steps:
            return
        while self.steps_left is not None and self.steps_left < len(steps):
            self.held.set()
            await self._release.wait()
        if self.steps_left is not None:
            self.steps_left -= len(steps)
            for step in steps:
                self.passed.update(choices_of(step))


class LinkProxy(WireProxy):
    """Between two stages. Faults are of what goes to the later one."""

    def __init__(self):
        super().__init__()
        self.faults = 0  # that have happened
        self._fault = None
        self._plans_left = None  # that pass before one stands still
        self._open = asyncio.Event()
        self._open.set()
        self.stands = asyncio.Event()  # a plan waits here

    def hold_after_plans(self, count):
        """Nothing passes after so many plans, until release()."""
        self._plans_left = count

    def release(self):
        self._plans_left = None
        self.stands.clear()
        self._open.set()

    def change_next(self):
        """The last bit of the next frame with hidden states."""
        self._fault = "change"

    def truncate_next(self):
        """The next frame with hidden states; the connection ends with it."""
        self._fault = "truncate"

    async def _forward(self, reader, writer):
        try:
            writer.write(await reader.readexactly(_PREFACE))
            while True:
                header = await reader.readexactly(_FRAME_HEADER)
                size = int.from_bytes(header[:3], "big")
                payload = bytearray(await reader.readexactly(size))
                is_plan = header[3] == _DATA and size >= _HIDDEN
                if is_plan:
                    self._count_plan()
                await self._open.wait()
                if is_plan and self._fault:
                    fault, self._fault = self._fault, None
                    self.faults += 1
                    if fault == "truncate":
                        writer.write(header + payload[:size // 2])
                        await writer.drain()
                        return
                    payload[-1] ^= 1
                writer.write(header + payload)
                await writer.drain()
        finally:
            writer.close()

    def _count_plan(self):
        if self._plans_left is None:
            return
        self._plans_left -= 1
        if self._plans_left < 0:
            self._open.clear()
            self.stands.set()


def steps_of(payload):
    """The steps among the whole messages of a DATA frame."""
    steps = []
    while len(payload) >= 5:
        size = int.from_bytes(payload[1:5], "big")
        steps += [value for field, value in fields_of(payload[5:5 + size])
                  if field == _STEP]
        payload = payload[5 + size:]
    return steps


def choices_of(step):
    """The choice of each token record of a step."""
    return [dict(fields_of(record)).get(_CHOICE, 0)
            for field, record in fields_of(step) if field == _TOKENS]


def fields_of(message):
    """(number, value) of a protobuf message: bytes, or an integer."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            size = varint()
        yield tag >> 3, message[at:at + size]
        at += size
