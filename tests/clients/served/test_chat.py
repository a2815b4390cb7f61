"""Chat through the `openai` Python package."""

import openai
import pytest

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
GREEDY = {"temperature": 0, "max_tokens": 24}


def collect(stream) -> tuple[str, list]:
    """The whole text of a stream, and its chunks."""
    chunks = list(stream)
    deltas = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    return "".join(deltas), chunks


def test_answers_a_question(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, **GREEDY)
    assert answer.object == "chat.completion"
    assert answer.model == model
    assert answer.choices[0].message.role == "assistant"
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_usage_adds_up(client, model):
    usage = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=3).usage
    assert usage.completion_tokens == 3
    assert usage.prompt_tokens > 10
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_is_the_same_answer_in_pieces(client, model):
    plain = client.chat.completions.create(model=model, messages=QUESTION, **GREEDY)
    text, chunks = collect(client.chat.completions.create(model=model, messages=QUESTION, stream=True, **GREEDY))
    assert text == plain.choices[0].message.content
    assert len(chunks) > 3
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == [plain.choices[0].finish_reason]
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_usage_when_asked(client, model):
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model=model, messages=QUESTION, stream=True, stream_options=options, temperature=0, max_tokens=5
    )
    _, chunks = collect(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(client, model):
    counting = [{"role": "user", "content": "Count from one to ten in digits, separated by commas."}]
    free = client.chat.completions.create(model=model, messages=counting, temperature=0, max_tokens=48)
    text = free.choices[0].message.content
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    cut = client.chat.completions.create(model=model, messages=counting, temperature=0, max_tokens=48, stop=[stop])
    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_max_tokens_is_a_limit(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_completion_tokens=1)
    assert answer.usage.completion_tokens == 1
    assert answer.choices[0].finish_reason == "length"


def test_a_seed_repeats_and_another_seed_differs(client, model):
    story = [{"role": "user", "content": "Tell me a story about a lighthouse."}]

    def tell(seed: int) -> str:
        answer = client.chat.completions.create(
            model=model, messages=story, seed=seed, temperature=1.2, max_tokens=32
        )
        return answer.choices[0].message.content

    assert tell(7) == tell(7)
    assert len({tell(seed) for seed in range(1, 5)}) > 1


def test_logprobs_cover_every_token(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, logprobs=True, top_logprobs=4, **GREEDY)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 4
        alternatives = [other.logprob for other in token.top_logprobs]
        assert alternatives == sorted(alternatives, reverse=True)
        assert token.logprob == alternatives[0], "greedy takes the likeliest"
    text = b"".join(bytes(token.bytes) for token in tokens).decode(errors="ignore")
    assert text.startswith(answer.choices[0].message.content)


def test_a_conversation_has_roles(client, model):
    messages = [
        {"role": "system", "content": "You are a terse assistant."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]},
    ]
    answer = client.chat.completions.create(model=model, messages=messages, **GREEDY)
    alone = client.chat.completions.create(model=model, messages=messages[-1:], **GREEDY)
    # The template puts its own system message where there is none, so only the three turns between count.
    assert answer.usage.prompt_tokens > alone.usage.prompt_tokens
    assert answer.choices[0].message.content != alone.choices[0].message.content


def test_neutral_values_are_accepted(client, model):
    answer = client.chat.completions.create(
        model=model,
        messages=QUESTION,
        max_tokens=2,
        n=1,
        tools=[],
        response_format={"type": "text"},
        logit_bias={},
        user="somebody",
        extra_body={"a_field_nobody_knows": 1},
    )
    assert answer.choices[0].message.content


@pytest.mark.parametrize("field", [{"n": 2}, {"response_format": {"type": "json_object"}}])
def test_what_changes_the_meaning_is_refused_by_name(client, model, field):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=QUESTION, **field)
    assert refused.value.param == next(iter(field))

