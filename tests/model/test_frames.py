"""What a run was trained on is kept frame by frame; the difference is said in frames, not in digests."""

import pytest
from test_train import play

from bevformer.errors import DataError
from bevformer.frames import frame_lines, frames_difference, frames_digest, read_frames, write_frames


class Numbers:
    """Frames t0, t1, ... whose parts are what `parts` says."""

    def __init__(self, *parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts)

    def token_of(self, index):
        return "t%d" % index

    def parts_of(self, index):
        return dict(zip(("time", "boxes", "poses"), self.parts[index]))


SAME, POSED, LATER = (b"1", b"2", b"3"), (b"1", b"2", b"x"), (b"x", b"2", b"3")
LINES = frame_lines(Numbers(SAME, SAME, SAME))


@pytest.mark.parametrize(
    "now, said",
    [
        (LINES[:2], "1 of 3 is missing, such as t2"),
        (frame_lines(Numbers(*[SAME] * 5)), "2 of 5 are new, such as t3"),
        (frame_lines(Numbers(SAME, (b"1", b"x", b"3"), SAME)), "1 of 3 has other boxes, such as t1"),
        (frame_lines(Numbers(*[POSED] * 3)), "3 of 3 have other poses or calibration, such as t0"),
        (frame_lines(Numbers(LATER, SAME, SAME)), "1 of 3 has another time or scene, such as t0"),
        (LINES[::-1], "the same frames in another order"),
    ],
)  # fmt: skip
def test_difference_is_counted_and_has_an_example(now, said):
    assert frames_difference(LINES, now) == said and frames_digest(LINES) != frames_digest(now)


def test_a_file_that_is_not_whole_tells_nothing(tmp_path):
    write_frames(str(tmp_path), LINES)
    assert read_frames(str(tmp_path), frames_digest(LINES)) == LINES
    text = (tmp_path / "frames.txt").read_bytes()
    for damaged in (text[:-9], b"", bytes(len(text)), b"\xff" + text):
        (tmp_path / "frames.txt").write_bytes(damaged)
        assert read_frames(str(tmp_path), frames_digest(LINES)) is None


def test_other_frames_are_refused_also_where_the_old_digest_does_not_see_them(tmp_path):
    """It covers tokens, times and boxes; the new one also velocities, poses and calibration."""
    play(tmp_path / "a", infos_digest="d", frames=LINES)
    other = frame_lines(Numbers(SAME, SAME, (b"1", b"2", b"x")))
    for resume, folder in (("auto", "a"), (str(tmp_path / "a" / "iter_12.pth"), "b")):
        with pytest.raises(DataError, match="iter_12.pth was trained on: 1 of 3 has other poses"):
            play(tmp_path / folder, infos_digest="d", frames=other, resume=resume)
    assert play(tmp_path / "a", infos_digest="d", frames=LINES, resume="auto")["steps"] == 12


def test_without_the_file_the_digests_are_said(tmp_path):
    play(tmp_path, frames=LINES)
    (tmp_path / "frames.txt").unlink()
    with pytest.raises(DataError) as caught:
        play(tmp_path, frames=LINES[1:], resume="auto")
    assert caught.value.seen.endswith("iter_12.pth was trained on")
    assert frames_digest(LINES)[:12] in caught.value.why


def test_a_run_of_before_these_lines_still_goes_on(tmp_path):
    play(tmp_path, infos_digest="d")
    assert play(tmp_path, infos_digest="d", frames=LINES, resume="auto")["steps"] == 12
