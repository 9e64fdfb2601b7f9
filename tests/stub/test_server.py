"""The server with real sockets and pipes, on a target in memory."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stub.links import Listener, SocketLink, listen
from stub.packet import frame
from stub.server import Address, Server, ServerError, parse_address
from stub.session import Session
from stub.target import StopReport
from stub_fakes import Client, FakeTarget

PATIENCE = 60  #: seconds until a test that hangs fails, on a busy host too


class Bench:
    """A server on a FakeTarget that any thread may call, one at a time."""

    def __init__(self) -> None:
        self.target = FakeTarget()
        self.lock = threading.RLock()
        self.errors: list[BaseException] = []
        self.servers: list[Server] = []

    def call(self, fn: Callable[[], object]) -> object:
        with self.lock:
            return fn()

    def session(self, compressed: bool, on_output: Callable[[], None]) -> Session:
        return Session(
            self.target, has_runner=True, compressed=compressed, on_output=on_output, on_error=self.errors.append
        )

    def serve(self, address: str = "127.0.0.1:0", **options: object) -> str:
        server = Server(address, self.session, call=self.call, on_error=self.errors.append, **options)  # type: ignore[arg-type]
        shown = server.start()
        self.servers.append(server)
        return shown


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for server in made.servers:
        server.close()
    assert made.errors == []


class Peer:
    """A client on a socket."""

    def __init__(self, address: str) -> None:
        if address.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]"), int(port)))
        self.socket.settimeout(PATIENCE)
        self.client = Client(Session(FakeTarget()))  # for its decoder
        self.waiting: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        """The next packet; EOFError at the end."""
        while not self.waiting:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self.waiting = self.client.incoming(data)
        return self.waiting.pop(0)

    def ask(self, payload: bytes) -> bytes:
        self.send(frame(payload))
        return self.receive()

    def close(self) -> None:
        self.socket.close()


def until_free(address: str) -> Peer:
    """A client that is served, when the one before has been noticed to be gone."""
    for _ in range(1000):
        peer = Peer(address)
        if peer.ask(b"qC") == b"QC1":
            return peer
        peer.close()
    raise AssertionError("still busy")


def test_an_accepted_client_waits_for_no_acknowledgement_of_tcp_and_is_missed_when_its_host_is_gone() -> None:
    """tcp(7): TCP_NODELAY sends a small packet at once; SO_KEEPALIVE with its times finds a silent peer dead."""
    listener, address = listen(Address("127.0.0.1", 0), 1)
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as peer:
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0, "what a socket has that nobody has set"
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        link, _ = accepted(listener)
        with socket.socket(fileno=os.dup(link.fileno())) as seen:
            assert seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert seen.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            if hasattr(socket, "TCP_KEEPIDLE"):
                idle, between, probes = (
                    seen.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                )
                assert idle + between * probes == 120, "seconds, as docs and changes say"
        link.close()
    listener.close()


def accepted(listener: Listener) -> tuple[SocketLink, str]:
    """The client that is on its way."""
    assert select.select([listener], [], [], PATIENCE)[0]
    found = listener.accept()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1234", Address("127.0.0.1", 1234)),
        (":1234", Address("127.0.0.1", 1234)),
        ("0", Address("127.0.0.1", 0)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
        ("[::1]:99", Address("::1", 99)),
        ("tcp:localhost:99", Address("localhost", 99)),
        ("./s", Address(path="./s")),
        ("unix:s", Address(path="s")),
        ("stdio", Address()),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "x", "host:", "1:65536", "-1", "localhost", "1.5", "/" + "x" * 200, "unix:", "h:²"]
)
def test_bad_addresses_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ServerError, match=r"\w+ \w+ \w+"):
        parse_address(text)


def test_tcp_on_the_loopback_interface_with_a_free_port(bench: Bench) -> None:
    address = bench.serve("0")
    assert address.startswith("127.0.0.1:")
    peer = Peer(address)
    assert peer.ask(b"qC") == b"QC1"


def test_ack_and_answer_leave_in_one_send(bench: Bench) -> None:
    peer = Peer(bench.serve())
    peer.send(frame(b"qC"))
    assert peer.socket.recv(100) == b"+" + frame(b"QC1")


def test_unix_socket_is_private_and_removed_at_the_end(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "gdb.sock"
    assert bench.serve(str(path)) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    peer = Peer(str(path))
    assert peer.ask(b"qC") == b"QC1"
    bench.servers[0].close()
    assert not path.exists()


def test_a_socket_left_over_by_a_killed_server_is_replaced(bench: Bench, tmp_path: Path) -> None:
    path = str(tmp_path / "gdb.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    bench.serve(path)
    assert Peer(path).ask(b"qC") == b"QC1"


def test_addresses_in_use_are_refused_in_a_sentence(bench: Bench, tmp_path: Path) -> None:
    port, path = bench.serve(), str(tmp_path / "gdb.sock")
    bench.serve(path)
    with pytest.raises(ServerError, match=f"port {port.rpartition(':')[2]} on 127.0.0.1 is in use by another program"):
        bench.serve(port)
    with pytest.raises(ServerError, match="is in use by another program"):
        bench.serve(path)
    plain = tmp_path / "file"
    plain.write_text("keep")
    with pytest.raises(ServerError, match="not a socket"):
        bench.serve(str(plain))
    assert plain.read_text() == "keep"
    with pytest.raises(ServerError, match="cannot be served"):
        bench.serve(str(tmp_path / "no" / "dir"))
    with pytest.raises(ServerError, match="not an address of this computer"):
        bench.serve("192.0.2.1:0")


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    (server_in, client_out), (client_in, server_out) = os.pipe(), os.pipe()
    yield server_in, server_out, client_in, client_out
    for fd in (server_in, server_out, client_in):
        os.close(fd)


def test_stdio_serves_compressed_and_ends_with_its_input(bench: Bench, pipes: tuple[int, int, int, int]) -> None:
    server_in, server_out, client_in, client_out = pipes
    bench.target.memory[0:0x8000] = bytes(0x8000)
    assert bench.serve("stdio", pipes=(server_in, server_out)) == "stdio"
    os.write(client_out, frame(b"m0,8000"))
    client, found, size = Client(Session(FakeTarget())), [], 0
    while not found:
        data = os.read(client_in, 4096)
        size += len(data)
        found = client.incoming(data)
    assert found == [b"00" * 0x8000]
    assert size < 0x2000
    os.close(client_out)
    assert bench.servers[0].wait(PATIENCE)


def test_a_second_client_is_told_and_the_first_is_not_disturbed(bench: Bench) -> None:
    address = bench.serve()
    first = Peer(address)
    assert first.ask(b"qC") == b"QC1"
    second = Peer(address)
    answer = second.ask(b"qSupported:swbreak+")
    assert answer.startswith(b"E.another client is connected (127.0.0.1:")
    assert answer.endswith(b"): disconnect it first")
    with pytest.raises(EOFError):
        second.receive()
    assert first.ask(b"qC") == b"QC1"
    first.close()
    assert until_free(address).ask(b"qC") == b"QC1"


def test_silent_extra_clients_do_not_pile_up(bench: Bench) -> None:
    address = bench.serve()
    first = Peer(address)
    first.ask(b"qC")
    others = [Peer(address) for _ in range(20)]
    assert first.ask(b"qC") == b"QC1"
    assert others[-1].ask(b"?").startswith(b"E.another")


@pytest.mark.parametrize("cut", [b"", b"$", b"$Z0,7c00", b"$qC#", b"\x03"])
def test_a_client_that_vanishes_makes_room_for_the_next(bench: Bench, cut: bytes) -> None:
    address = bench.serve()
    peer = Peer(address)
    assert peer.ask(b"Z0,500,1") == b"OK"
    peer.send(cut)
    peer.close()
    until_free(address)
    assert bench.target.points == set()


def test_a_reset_connection_makes_room_for_the_next(bench: Bench) -> None:
    address = bench.serve()
    peer = Peer(address)
    peer.ask(b"qC")
    # SO_LINGER with a time of 0: close sends RST (tcp(7), socket(7)).
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4))
    peer.send(frame(b"m0,10000") * 50)
    peer.close()
    until_free(address)


def test_a_stop_reaches_the_client_that_waits(bench: Bench) -> None:
    peer = Peer(bench.serve())
    peer.ask(b"?")
    peer.send(frame(b"vCont;c"))
    while not bench.target.running:
        pass
    bench.call(lambda: bench.target.stop(StopReport()))
    assert peer.receive() == b"T05thread:1;core:0;"


def test_ctrl_c_reaches_a_running_guest(bench: Bench) -> None:
    peer = Peer(bench.serve())
    peer.send(frame(b"vCont;c") + b"\x03")
    assert peer.receive() == b"T02thread:1;core:0;"


def test_a_client_that_does_not_read_holds_up_nobody_and_costs_little(bench: Bench) -> None:
    address = bench.serve()
    peer = Peer(address)
    peer.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        while True:
            peer.socket.sendall(frame(b"m0,10000") * 1000)
    assert bench.call(lambda: 5) == 5
    with bench.lock:
        connection = bench.servers[0]._connection
        assert connection is not None
        assert connection.session is not None
        assert connection.session.buffered < 2 << 20
    second = Peer(address)
    assert second.ask(b"?").startswith(b"E.another client")
    peer.close()
    until_free(address)


def test_a_flood_of_questions_is_answered_to_the_last(bench: Bench) -> None:
    peer = Peer(bench.serve())
    sender = threading.Thread(target=peer.send, args=(frame(b"m0,8000") * 1000 + frame(b"qC"),))
    sender.start()
    count = 0
    while peer.receive() != b"QC1":
        count += 1
    sender.join(PATIENCE)
    assert count == 1000


@pytest.mark.slow
def test_ten_megabytes_of_random_bytes_and_then_a_question(bench: Bench) -> None:
    address = bench.serve()
    peer = Peer(address)
    rng = random.Random(4)

    def read() -> None:
        while not done.is_set():
            try:
                if not peer.socket.recv(1 << 16):
                    return
            except OSError:
                return

    done = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(160):
        data = rng.randbytes(0x10000)
        # A random `k` or `D` packet would end the connection rightly; there is none with this seed.
        peer.send(data)
    done.set()
    peer.send(b"#00" + frame(b"qC"))
    peer.socket.shutdown(socket.SHUT_WR)
    reader.join(PATIENCE)
    peer.close()
    assert until_free(address).ask(b"qC") == b"QC1"


def test_monitor_runs_on_a_thread_of_its_own(bench: Bench) -> None:
    threads: list[str] = []

    def run(command: str) -> str:
        threads.append(threading.current_thread().name)
        # The target's thread is free meanwhile.
        assert bench.call(lambda: 1) == 1
        if command == "bad":
            raise ValueError("no command is called bad")
        return f"ran {command}"

    peer = Peer(bench.serve(run_command=run))
    assert peer.ask(b"qRcmd," + b"sreg".hex().encode()) == b"O" + b"ran sreg\n".hex().encode()
    assert peer.receive() == b"OK"
    assert peer.ask(b"qRcmd," + b"bad".hex().encode()) == b"O" + b"no command is called bad\n".hex().encode()
    assert peer.receive() == b"OK"
    assert set(threads) == {"v2e-gdb-monitor"}


def test_packets_that_follow_at_once_are_handled_without_another_call_of_the_target_s_thread(bench: Bench) -> None:
    calls, connected = 0, threading.Event()

    def call(fn: Callable[[], object]) -> object:
        nonlocal calls
        calls += 1
        assert connected.wait(PATIENCE)
        # What comes while the target's thread is busy is waiting when it has answered.
        peer.send(frame(b"qC") * 3)
        return fn()

    server = Server("127.0.0.1:0", bench.session, call=call, on_error=bench.errors.append)
    bench.servers.append(server)
    peer = Peer(server.start())
    connected.set()
    for _ in range(6):
        assert peer.receive() == b"QC1"
    assert calls == 2  # one to connect, which brought three packets, one for these and three more


@pytest.mark.parametrize("told", [False, True])
def test_a_client_that_never_pauses_does_not_keep_the_target_s_thread(bench: Bench, told: bool) -> None:
    """`told`: the server is told whether somebody waits for the thread, and stays on it until then."""
    waiting = threading.Event()
    address = bench.serve(wanted=waiting.is_set) if told else bench.serve()
    peer = Peer(address)
    peer.ask(b"QStartNoAckMode")
    stop = threading.Event()

    def chatter() -> None:
        while not stop.is_set():
            peer.ask(b"qC")

    talker = threading.Thread(target=chatter)
    talker.start()
    for _ in range(20):
        waiting.set()
        assert bench.lock.acquire(timeout=PATIENCE)
        waiting.clear()
        bench.lock.release()
    second = Peer(address)
    assert second.ask(b"?").startswith(b"E.another client")
    second.close()
    stop.set()
    talker.join(PATIENCE)
    assert not talker.is_alive()


def test_a_server_closes_under_a_client_that_never_pauses(bench: Bench) -> None:
    peer = Peer(bench.serve(wanted=lambda: False))
    peer.ask(b"QStartNoAckMode")
    gone = threading.Event()

    def chatter() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                peer.ask(b"qC")
        gone.set()

    threading.Thread(target=chatter).start()
    bench.servers[0].close()
    assert bench.servers[0].wait(0)
    assert gone.wait(PATIENCE)


def test_a_flood_of_ctrl_c_stops_the_guest_once_and_costs_nothing(bench: Bench) -> None:
    peer = Peer(bench.serve())
    peer.ask(b"QStartNoAckMode")
    flood = b"\x03" * 20_000
    peer.send(flood)  # nothing runs: the next that would does not
    peer.ask(b"vCont;c")
    assert bench.target.calls == []
    peer.send(flood)
    peer.send(frame(b"vCont;c") + flood + frame(b"qC"))
    assert peer.receive() == b"T02thread:1;core:0;"
    assert peer.receive() == b"QC1"
    assert bench.target.calls.count("interrupt") == 1


def test_half_open_clients_and_one_that_says_nothing_do_not_keep_others_out_for_ever(bench: Bench) -> None:
    address = bench.serve()
    first = Peer(address)
    first.socket.shutdown(socket.SHUT_WR)  # it still reads, and will never say anything
    until_free(address).close()
    second = until_free(address)
    second.send(b"$qC")
    second.socket.shutdown(socket.SHUT_RDWR)
    until_free(address)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", b"$qC"])
def test_a_client_that_says_no_packet_gives_way_to_the_next(bench: Bench, said: bytes) -> None:
    address = bench.serve()
    first = Peer(address)
    first.send(said)
    second = until_free(address)
    with pytest.raises((EOFError, ConnectionError)):
        while True:
            first.receive()
    assert Peer(address).ask(b"qC") != b"QC1"
    assert second.ask(b"qC") == b"QC1"


def test_kill_is_acknowledged_then_closed_then_carried_out(bench: Bench) -> None:
    address = bench.serve()
    peer = Peer(address)
    peer.send(frame(b"k"))
    assert peer.socket.recv(10) == b"+"
    assert peer.socket.recv(10) == b""
    until_free(address)
    assert bench.target.calls.count("kill") == 1


def test_a_failing_target_costs_the_client_but_not_the_server(bench: Bench) -> None:
    address = bench.serve()
    peer = Peer(address)
    peer.ask(b"qC")
    bench.target.halt = None  # type: ignore[method-assign, assignment]
    bench.servers[0]._connection.session.state = type(bench.servers[0]._connection.session.state).NEW  # type: ignore[union-attr]
    peer.send(frame(b"qC"))
    with pytest.raises(EOFError):
        peer.receive()
    assert [type(error) for error in bench.errors] == [TypeError]
    bench.errors.clear()
    del bench.target.halt
    until_free(address)


def test_close_disconnects_and_frees_the_port(bench: Bench) -> None:
    address = bench.serve()
    peer = Peer(address)
    peer.ask(b"qC")
    assert bench.servers[0].packet_log() == ("<- qC", "-> QC1")
    bench.servers[0].close()
    with pytest.raises(EOFError):
        peer.receive()
    with pytest.raises(ConnectionRefusedError):
        Peer(address)
    bench.serve(address)


def test_what_takes_time_is_prepared_before_the_first_client_comes(bench: Bench) -> None:
    prepared = threading.Event()
    address = bench.serve(prepare=prepared.set)
    assert prepared.wait(PATIENCE)
    assert Peer(address).ask(b"QStartNoAckMode") == b"OK"
