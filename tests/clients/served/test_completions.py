"""Completions and models through the `openai` Python package."""

PROMPT = "The quick brown fox jumps over the lazy"


def test_continues_a_text(client, model):
    answer = client.completions.create(model=model, prompt=PROMPT, temperature=0, max_tokens=8)
    assert answer.object == "text_completion"
    assert " dog" in answer.choices[0].text
    assert answer.usage.completion_tokens <= 8


def test_a_stream_is_the_same_text(client, model):
    request = {"model": model, "prompt": PROMPT, "temperature": 0, "max_tokens": 8}
    plain = client.completions.create(**request).choices[0].text
    pieces = [choice.text for chunk in client.completions.create(stream=True, **request) for choice in chunk.choices]
    assert "".join(pieces) == plain


def test_echo_puts_the_prompt_before_the_answer(client, model):
    request = {"model": model, "prompt": PROMPT, "temperature": 0, "max_tokens": 4}
    plain = client.completions.create(**request).choices[0].text
    assert client.completions.create(echo=True, **request).choices[0].text == PROMPT + plain


def test_echo_with_logprobs_scores_the_prompt(client, model):
    answer = client.completions.create(
        model=model, prompt=PROMPT, echo=True, logprobs=2, temperature=0, max_tokens=1
    )
    scored = answer.choices[0].logprobs
    assert "".join(scored.tokens) == answer.choices[0].text
    assert len(scored.tokens) == len(scored.token_logprobs) == answer.usage.total_tokens
    assert scored.token_logprobs[0] is None, "nothing comes before the first token"
    assert all(value <= 0 for value in scored.token_logprobs[1:])
    assert scored.text_offset[0] == 0
    assert scored.text_offset == sorted(scored.text_offset)


def test_a_score_is_the_same_whether_generated_or_read(client, model):
    """The model's own continuation, scored as a prompt, has the log-probabilities it was generated with."""
    generated = client.completions.create(model=model, prompt=PROMPT, logprobs=1, temperature=0, max_tokens=6)
    whole = PROMPT + generated.choices[0].text
    read = client.completions.create(model=model, prompt=whole, echo=True, logprobs=1, temperature=0, max_tokens=1)
    fresh, scored = generated.choices[0].logprobs, read.choices[0].logprobs
    end = read.usage.prompt_tokens
    place = slice(end - len(fresh.tokens), end)
    assert scored.tokens[place] == fresh.tokens
    assert scored.token_logprobs[place] == fresh.token_logprobs


def test_models_are_listed_and_retrieved(client, model):
    listed = client.models.list().data
    assert model in [entry.id for entry in listed]
    assert client.models.retrieve(model).id == model
    assert client.models.retrieve(model).object == "model"
