from __future__ import annotations

import pytest

from forge_realtime import Delivery, ResponseError
from tests.documented import FORMS, OPERATIONS, POLICIES, Form, Operation
from tests.support.callers import Caller
from tests.support.fault_server import FaultServer


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_documented_response_has_its_class_code_and_delivery(
    caller: Caller, form: Form, operation: Operation, policy: str
) -> None:
    with FaultServer(then=form.response(operation)) as server:
        [outcome] = caller(server.url, OPERATIONS[operation], retry=POLICIES[policy])
    expected = form.outcome
    assert len(server.received) == form.attempts(operation, POLICIES[policy])
    assert [attempt.delivery for attempt in outcome.attempts] == [expected.delivery] * len(server.received)
    if expected.error is None:
        assert not isinstance(outcome, Exception)
        return
    assert type(outcome) is expected.error
    assert isinstance(outcome, ResponseError)
    assert (outcome.status, outcome.delivery, outcome.code) == (form.status, expected.delivery, form.codes[operation])
    if expected.delivery is Delivery.UNKNOWN:
        assert "it was not carried out" not in str(outcome)


def test_contradiction_quotes_neither_side() -> None:
    [form] = [form for form in FORMS if form.name == "200, a result and errors"]
    with FaultServer(then=form.response("publish")) as server:
        [error] = Caller("sync")(server.url, OPERATIONS["publish"], retry=POLICIES["at_most_once"])
    assert "contradicts itself" in str(error)
    assert "event-1" not in str(error)
    assert "Unauthorized" not in str(error)
