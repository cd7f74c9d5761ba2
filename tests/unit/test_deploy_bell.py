import asyncio

from fedrec.deploy.bell import EACH, Bell, count, ring


def test_it_counts_and_survives_a_missing_or_torn_file(tmp_path):
    path = tmp_path / "bell"
    assert count(path) == 0
    ring(path)
    ring(path)
    assert count(path) == 2
    for torn in ("", "x", "1.5"):
        path.write_text(torn)
        assert count(path) == 0
    ring(path)
    assert count(path) == 1 and [entry.name for entry in tmp_path.iterdir()] == ["bell"]


def test_all_who_wait_are_told_at_once_by_one_reader(tmp_path):
    path = tmp_path / "bell"

    async def scene():
        bell = Bell(path, waits=50)
        waits = [asyncio.create_task(bell.wait(0)) for _ in range(50)]
        await asyncio.sleep(0.05)
        assert bell.full and not any(wait.done() for wait in waits)
        assert len(asyncio.all_tasks()) == 52  # these, this one, and a single reader
        ring(path)
        assert await asyncio.wait_for(asyncio.gather(*waits), 5) == [1] * 50
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == 1 and not bell.full
        assert await bell.wait(0) == 1  # rung already
        assert await bell.wait(9) == 1  # counted anew since

    asyncio.run(scene())


def test_one_address_leaves_room_for_others(tmp_path):
    async def scene():
        bell = Bell(tmp_path / "bell", waits=512)
        waits = [asyncio.create_task(bell.wait(0, f"2001:db8::{n + 1:x}")) for n in range(EACH)]
        await asyncio.sleep(0.05)
        assert bell.crowded("2001:db8::ffff") and not bell.full  # one subscriber has all of its network
        assert not bell.crowded("2001:db8:0:1::1") and not bell.crowded("10.0.0.1")
        waits.pop().cancel()
        await asyncio.sleep(0.05)
        assert not bell.crowded("2001:db8::1")
        ring(tmp_path / "bell")
        assert await asyncio.wait_for(asyncio.gather(*waits), 5) == [1] * (EACH - 1)
        assert not bell._here  # nothing is kept of who was there

    asyncio.run(scene())


def test_a_wait_ends_by_itself_when_cancelled_and_when_we_close(tmp_path):
    async def scene():
        short = Bell(tmp_path / "bell", waits=1, longest=0.05)
        assert await short.wait(0) == 0
        bell = Bell(tmp_path / "bell", waits=1)
        first = asyncio.create_task(bell.wait(0))
        await asyncio.sleep(0.03)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert not bell.full
        second = asyncio.create_task(bell.wait(0))
        await asyncio.sleep(0.03)
        bell.close()
        assert await asyncio.wait_for(second, 5) == 0 == await bell.wait(0)

    asyncio.run(scene())
