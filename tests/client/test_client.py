from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from iguana import (
    AttackResult,
    Client,
    DeadlineExceeded,
    Ended,
    IguanaError,
    InvalidArgument,
    Outcome,
    Overloaded,
    Progress,
    Unavailable,
    channel,
)
from iguana.image import from_image, to_images
from iguana.v1 import classify_pb2, classify_pb2_grpc
from tests.client.proxy import proxy_to
from tests.client.scripted import Scripted, linger, refuse, serve

GONE = refuse(grpc.StatusCode.UNAVAILABLE, "restarting")
TLS = Path(__file__).with_name("tls")
STOPPED = refuse(grpc.StatusCode.CANCELLED, "stopping")


def full(retry_after_s: float | None) -> list[object]:
    return [refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_s=retry_after_s)]


def test_classify_answers_in_order_with_its_manifest(client: Client, cat: bytes) -> None:
    answer = client.classify([cat, cat], model="net", top_k=2, logits=True)
    assert [c.top[0].name for c in answer] == ["tabby, tabby cat"] * 2
    assert len(answer[0].top) == 2
    assert answer[0].logits is not None
    assert answer[0].logits.tolist() == [3, 2, 1]
    assert (answer.manifest.model, answer.manifest.strict, answer.manifest.bucket) == ("net", True, 8)
    assert answer.manifest.versions == {"iguana": "0.1.0"}


def test_attack_answers_results_and_manifest(client: Client, cat: bytes) -> None:
    answer = client.attack(cat, target="fox", epsilon=0.5, seed=7, stop="never", return_clean=True)
    (result,) = answer
    assert result is answer[0]
    assert result.fooled
    assert (result.outcome, result.ended) == (Outcome.FOOLED, Ended.STEPS)
    assert result.clean is not None
    np.testing.assert_array_equal(result.image, result.clean.pixels + 1)
    assert result.image.shape == (4, 4, 3)
    assert result.png == result.picture.encoded  # type: ignore[union-attr]
    assert result.pil().size == (4, 4)
    manifest = answer.manifest
    assert (manifest.method, manifest.seed, manifest.stop, manifest.keep) == ("pgd", 7, "never", "best")
    assert manifest.parameters == {"epsilon": (0.5,)}


def test_progress_is_reported_and_the_answer_is_the_same(client: Client, cat: bytes) -> None:
    seen: list[Progress] = []
    reported = client.attack([cat, cat], target=1, on_progress=seen.append)
    assert [(p.sample, p.step) for p in seen] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert reported == client.attack([cat, cat], target=1)


def test_watch_ends_with_its_summary(client: Client, cat: bytes) -> None:
    with client.watch(cat, target=1, every_steps=2) as watch:
        events = list(watch)
    assert [type(event) for event in events] == [Progress, Progress, AttackResult]
    assert watch.summary is not None
    assert watch.summary.fooled == 1


def test_a_closed_watch_cancels_the_attack(client: Client, scripted: Scripted, cat: bytes) -> None:
    watch = client.watch(cat, target=1)
    scripted.acts.extend([lambda _: None, linger(5)])
    next(watch)
    watch.close()
    assert scripted.left.wait(2)


def test_lists_tell_models_limits_and_attacks(client: Client) -> None:
    models = client.models()
    assert [m.name for m in models] == ["net"]
    assert models[0].input.mean == (0.5, 0.5, 0.5)
    assert models.limits.max_images == 64
    (attack,) = client.attacks()
    assert [(p.name, p.high, p.choices) for p in attack.parameters] == [
        ("epsilon", 1.0, ()),
        ("start", 0.0, ("image", "noise")),
    ]


def test_health_says_whether_it_serves(client: Client, scripted: Scripted) -> None:
    assert client.health()
    assert not client.health("unknown")
    scripted.serving = False
    assert not client.health()


@pytest.mark.parametrize("act", [GONE, STOPPED])
def test_a_restart_is_not_noticed(client: Client, scripted: Scripted, cat: bytes, act: object) -> None:
    scripted.acts.extend([act, act])  # type: ignore[list-item]
    assert len(client.classify(cat)) == 1
    assert len(scripted.requests) == 3


def test_a_large_request_is_retried_too(client: Client, scripted: Scripted) -> None:
    scripted.acts.append(GONE)
    batch = np.zeros((40, 224, 224, 3), np.uint8)  # 6 MB; gRPC's own buffer is 256 KiB
    assert len(client.classify(batch)) == 40
    assert len(scripted.requests) == 2


def test_a_watch_is_retried_until_it_begins(client: Client, scripted: Scripted, cat: bytes) -> None:
    scripted.acts.append(GONE)
    scripted.acts.extend(full(0.02))  # type: ignore[arg-type]
    assert len(list(client.watch(cat))) == 3
    assert len(scripted.requests) == 3
    scripted.acts.extend([lambda _: None, GONE])
    with pytest.raises(Unavailable):
        list(client.watch(cat))
    assert len(scripted.requests) == 4


def test_a_refusal_is_not_sent_again(client: Client, scripted: Scripted, cat: bytes) -> None:
    scripted.acts.extend([refuse(grpc.StatusCode.INVALID_ARGUMENT)] * 3)
    with pytest.raises(InvalidArgument):
        client.classify(cat)
    assert len(scripted.requests) == 1


def test_no_retries_means_one_try(target: str, scripted: Scripted, cat: bytes) -> None:
    scripted.acts.append(GONE)
    with Client(target, retries=0) as client, pytest.raises(Unavailable):
        client.classify(cat)
    scripted.acts.extend(full(0.01))  # type: ignore[arg-type]
    with Client(target, retries=0) as client, pytest.raises(Overloaded):
        client.classify(cat)
    assert len(scripted.requests) == 2


def test_a_full_queue_is_waited_for(client: Client, scripted: Scripted, cat: bytes) -> None:
    scripted.acts.extend(full(0.05) * 6)  # type: ignore[arg-type]
    start = time.monotonic()
    client.classify(cat)
    assert time.monotonic() - start >= 6 * 0.05
    assert len(scripted.requests) == 7


@pytest.mark.parametrize("retry_after_s", [30.0, None])
def test_a_wait_past_the_deadline_is_not_begun(
    client: Client, scripted: Scripted, cat: bytes, retry_after_s: float | None
) -> None:
    scripted.acts.extend(full(retry_after_s))  # type: ignore[arg-type]
    start = time.monotonic()
    with pytest.raises(Overloaded) as caught:
        client.classify(cat)
    assert time.monotonic() - start < 2
    assert caught.value.retry_after_s == retry_after_s


def test_a_timeout_is_kept_and_frees_the_server(client: Client, scripted: Scripted, cat: bytes) -> None:
    scripted.acts.append(linger(5))
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        client.classify(cat, timeout_s=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - start < 2
    assert scripted.left.wait(2)


def test_own_streams_are_bounded(target: str, scripted: Scripted, cat: bytes) -> None:
    lock, running, most = threading.Lock(), 0, 0

    def count(_: grpc.ServicerContext) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    scripted.acts.extend([count] * 12)
    with Client(target, max_streams=3) as client, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.classify(cat), range(12)))
    assert len(answers) == 12
    assert most == 3


def test_waiting_for_an_own_stream_ends_at_the_deadline(target: str, cat: bytes) -> None:
    with Client(target, max_streams=1) as client:
        watch = client.watch(cat)
        next(watch)
        with pytest.raises(DeadlineExceeded, match="all 1 streams of this client were busy"):
            client.classify(cat, timeout_s=0.1)
        watch.close()
        client.classify(cat, timeout_s=5)


def test_the_caller_is_named(target: str, scripted: Scripted, cat: bytes) -> None:
    with Client(target, caller="lab-7") as client:
        client.classify(cat)
    assert scripted.metadata[0]["iguana-caller"] == "lab-7"


def test_an_unreachable_server_is_unavailable() -> None:
    server, target = serve(Scripted())
    server.stop(0).wait()
    start = time.monotonic()
    with Client(target) as client, pytest.raises(Unavailable) as caught:
        client.health()
    assert isinstance(caught.value, ConnectionError)
    assert time.monotonic() - start < 10


def test_a_cut_network_is_noticed_by_a_waiting_call(
    target: str, scripted: Scripted, cat: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "PING_S", 1.0)
    monkeypatch.setattr(channel, "PING_TIMEOUT_S", 0.5)
    scripted.acts.append(linger(20))
    with proxy_to(target) as proxy, Client(proxy.target, retries=0) as client:
        threading.Timer(0.5, proxy.cut).start()
        start = time.monotonic()
        with pytest.raises(Unavailable, match="ping timeout"):
            client.classify(cat)
        assert time.monotonic() - start < 6


def test_a_new_server_at_the_same_address_is_found(cat: bytes) -> None:
    server, target = serve(Scripted())
    with Client(target) as client:
        client.classify(cat)
        server.stop(0).wait()
        again, _ = serve(Scripted(), target)
        client.classify(cat)
        again.stop(0).wait()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"target": ""}, "target: want HOST:PORT"),
        ({"timeout_s": 0}, "timeout_s: want seconds above 0, got 0"),
        ({"timeout_s": float("nan")}, "timeout_s: want seconds above 0, got nan"),
        ({"caller": "é"}, "caller: want printable ASCII text"),
        ({"max_streams": 0}, "max_streams: want at least 1, got 0"),
        ({"retries": 5}, "retries: want 0 to 4, got 5"),
        ({"max_send_bytes": 0}, "max_send_bytes: want 1 to 1073741824, got 0"),
        ({"max_receive_bytes": 1 << 31}, "max_receive_bytes: want 1 to 1073741824, got 2147483648"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        Client(**arguments)  # type: ignore[arg-type]


def test_too_large_a_request_is_not_sent(client: Client, scripted: Scripted) -> None:
    with pytest.raises(
        InvalidArgument, match=r"request: want at most max_send_bytes, 8388608 .*, got 9[0-9]+ bytes"
    ):
        client.classify(np.zeros((60, 224, 224, 3), np.uint8))
    assert not scripted.requests


def test_a_larger_request_is_sent_to_a_server_that_takes_it(scripted: Scripted) -> None:
    server, target = serve(scripted, max_bytes=16 << 20)
    scripted.acts.append(GONE)  # what is retried must fit the buffer of retries, too
    with Client(target, max_send_bytes=16 << 20) as client:
        assert len(client.classify(np.zeros((60, 224, 224, 3), np.uint8))) == 60
    assert len(scripted.requests) == 2
    server.stop(0).wait()


def test_each_item_of_a_pipeline_is_bounded_too(target: str, scripted: Scripted, cat: bytes) -> None:
    with (
        Client(target, max_send_bytes=len(cat)) as client,
        pytest.raises(InvalidArgument, match="request: want"),
    ):
        list(client.stream_classify([("a", {"images": cat})]))
    assert scripted.most_waiting == 0


def test_too_large_an_answer_is_not_taken(target: str, cat: bytes) -> None:
    with Client(target, max_receive_bytes=64) as client, pytest.raises(IguanaError, match="larger than max"):
        client.classify(cat)


def test_each_client_has_a_connection_of_its_own(target: str, scripted: Scripted, cat: bytes) -> None:
    """A server bounds the calls of a connection: two clients must not share its 128."""
    peers: list[str] = []
    scripted.acts.extend([lambda context: peers.append(context.peer())] * 4)
    with Client(target) as one, Client(target) as other:
        for client in (one, other, one, other):
            client.classify(cat)
    assert peers[:2] == peers[2:]
    assert len(set(peers)) == 2


def test_pixels_arrive_as_they_were_sent(client: Client, scripted: Scripted) -> None:
    pixels = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    client.classify(pixels)
    (request,) = scripted.requests
    assert isinstance(request, classify_pb2.ClassifyRequest)
    assert list(request.images) == to_images("images", pixels)
    np.testing.assert_array_equal([from_image(i).pixels for i in request.images], pixels)


INTERRUPTED = """
import sys
from iguana import Client
with Client(sys.argv[1]) as client:
    try:
        client.classify(open(sys.argv[2], "rb").read())
    except KeyboardInterrupt:
        sys.stdin.read()  # stay, so that only the call ends
"""


def test_control_c_cancels_the_call(target: str, scripted: Scripted, cat_file: os.PathLike[str]) -> None:
    began = threading.Event()

    def act(context: grpc.ServicerContext) -> None:
        began.set()
        linger(20)(context)

    scripted.acts.append(act)
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, target, os.fspath(cat_file)], stdin=subprocess.PIPE
    ) as process:
        assert began.wait(20)
        time.sleep(1)  # until it waits for the answer
        process.send_signal(signal.SIGINT)
        assert scripted.left.wait(5)
        process.communicate(b"")
    assert process.returncode == 0


def test_tls_takes_the_path_of_the_root_certificates(scripted: Scripted, cat: bytes) -> None:
    """`tls/` holds a key made for this test, and its own certificate of 127.0.0.1, 2020 to 2119."""
    key, certificate = TLS / "key.pem", TLS / "certificate.pem"
    server = grpc.server(ThreadPoolExecutor(2))
    classify_pb2_grpc.add_ClassifyServiceServicer_to_server(scripted, server)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    target = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    with Client(target, tls=certificate) as client:
        assert len(client.classify(cat)) == 1
    with Client(target, tls=grpc.ssl_channel_credentials(certificate.read_bytes())) as client:
        assert len(client.classify(cat)) == 1
    with Client(target, retries=0) as client, pytest.raises(Unavailable):
        client.classify(cat)
    server.stop(0).wait()
