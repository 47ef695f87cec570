"""A plain gRPC client that learns everything by reflection."""

import grpc
import pytest

from grpc_client import ReflectedService, reflected_services
from suite import MODEL

GENERATE = "caravan.v1.GenerateRequest"


@pytest.fixture(scope="module")
def service(suite):
    value = ReflectedService(suite.grpc, "caravan.v1.InferenceService")
    yield value
    value.close()


def make_request(service, text="Once upon a time", max_tokens=24, seed=9,
                 **fields):
    request = service.message(GENERATE, model=MODEL, text=text, **fields)
    request.stop.max_tokens = max_tokens
    request.sampling.seed = seed
    request.output.return_token_ids = True
    return request


def test_models_are_listed(service):
    request = service.message("caravan.v1.ListModelsRequest")
    models = service.call("ListModels", request).models
    assert [model.name for model in models] == [MODEL]
    assert models[0].context_length == 1024
    assert len(models[0].identity.weights_id) == 32
    assert models[0].parameter_count == 4000512


def test_a_stream_starts_goes_on_and_finishes_once(service):
    events = list(service.call("Generate", make_request(service)))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started" and kinds[-1] == "finished"
    assert kinds.count("started") == kinds.count("finished") == 1
    positions = [event.delta.first_position for event in events
                 if event.delta.token_ids]
    assert positions == sorted(positions)
    ids = [i for event in events for i in event.delta.token_ids]
    usage = events[-1].finished.usage
    assert usage.output_token_count == len(ids)
    assert usage.prompt_token_count == events[0].started.prompt_token_count
    assert 0 < len(events[-1].finished.receipt) < 2048


def test_the_unary_call_gives_the_streams_text(service):
    request = make_request(service)
    whole = service.call("Complete", request)
    text = "".join(event.delta.text
                   for event in service.call("Generate", request))
    assert whole.choices[0].text == text
    assert whole.seed == 9


def test_token_ids_and_text_are_the_same_prompt(service):
    by_text = service.call("Complete", make_request(service))
    request = make_request(service)
    request.token_ids.token_ids.extend(by_text.prompt_token_ids)
    by_ids = service.call("Complete", request)
    assert by_ids.choices[0].token_ids == by_text.choices[0].token_ids


def test_a_resumed_choice_continues_the_stream(service):
    whole = service.call("Complete", make_request(service, max_tokens=32))
    ids = list(whole.choices[0].token_ids)
    for taken in (1, 7, len(ids) - 1):
        request = make_request(service, max_tokens=32)
        request.resumed_choices.add(index=0, output_token_ids=ids[:taken])
        events = service.call("Generate", request)
        rest = [i for event in events for i in event.delta.token_ids]
        assert rest == ids[taken:] or rest == ids


def test_a_seed_is_drawn_and_told_where_none_is_given(service):
    request = make_request(service)
    request.sampling.ClearField("seed")
    drawn = service.call("Complete", request)
    request.sampling.seed = drawn.seed
    assert (service.call("Complete", request).choices[0].text ==
            drawn.choices[0].text)


@pytest.mark.parametrize("change, named", [
    (lambda r: setattr(r.sampling, "temperature", float("nan")),
     "temperature"),
    (lambda r: setattr(r.sampling, "temperature", -1), "temperature"),
    (lambda r: setattr(r.sampling, "top_p", 0), "top_p"),
    (lambda r: setattr(r, "n", 17), "n"),
    (lambda r: setattr(r, "priority", 101), "priority"),
    (lambda r: setattr(r.stop, "max_tokens", -1), "max_tokens"),
    (lambda r: setattr(r, "adapter", "x"), "adapter"),
    (lambda r: setattr(r, "suffix", "x"), "suffix"),
    (lambda r: r.token_ids.token_ids.extend([1, 4096]), "prompt[1]"),
    (lambda r: r.sampling.logit_bias.add(token_id=1, bias=101), "logit_bias"),
])
def test_a_bad_field_is_named(service, change, named):
    request = make_request(service)
    change(request)
    with pytest.raises(grpc.RpcError) as error:
        service.call("Complete", request)
    assert error.value.code() in (grpc.StatusCode.INVALID_ARGUMENT,
                                  grpc.StatusCode.UNIMPLEMENTED)
    assert named in error.value.details()


def test_a_deadline_ends_the_call(service):
    request = make_request(service, max_tokens=1000)
    request.stop.ignore_eos = True
    with pytest.raises(grpc.RpcError) as error:
        list(service.call("Generate", request, timeout=0.05))
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_every_process_describes_its_services(suite):
    """Reflection lists what a process serves, health among it."""
    for name, service in suite.services.items():
        names = reflected_services(service.grpc)
        assert "grpc.health.v1.Health" in names, name
        assert any(n.startswith("caravan.v1.") for n in names), name
