from studio.events import Measured, Step
from studio.jobs.monitor import JobView
from studio.ui import plots


def view_with(losses, measured=()):
    steps = tuple(Step(step=n, epoch=n, loss=loss, learning_rate=1e-3) for n, loss in enumerate(losses, start=1))
    marks = tuple(Measured(step=step, scores={"loss": loss}) for step, loss in measured)
    return JobView("a-run", "train", "a", 0.0, steps=steps, measured=marks)


def test_decimation_keeps_order_ends_and_the_one_spike():
    ys = [1.0] * 10_000
    ys[4321] = 99.0
    ys[7000] = -5.0
    xs, kept = plots.decimated(range(1, 10_001), ys, 2000)
    assert len(xs) <= 2000
    assert xs == sorted(xs)
    assert (4322, 99.0) in zip(xs, kept, strict=True)
    assert (7001, -5.0) in zip(xs, kept, strict=True)


def test_few_points_are_not_touched():
    assert plots.decimated([1, 2, 3], [3.0, 2.0, 1.0], 2000) == ([1, 2, 3], [3.0, 2.0, 1.0])


def test_runs_are_compared_by_loss_with_validation_as_marks():
    figure = plots.losses([view_with([3, 2, 1], [(3, 1.5)]), view_with([4, 4])])
    assert [trace.mode for trace in figure.data] == ["lines", "markers", "lines"]
    assert list(figure.data[1].y) == [1.5]
    assert figure.data[0].line.color == figure.data[1].marker.color
    assert figure.layout.yaxis.title.text == "Loss (nats per token)"


def test_a_figure_speaks_chinese_when_asked():
    assert plots.losses([], language="zh").layout.xaxis.title.text == "步数"
