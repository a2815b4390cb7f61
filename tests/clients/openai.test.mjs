// Chat through the `openai` npm package. `cargo xtask test --only clients` serves Helios and says where.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const { HELIOS_URL: url, HELIOS_MODEL: model } = process.env;
assert.ok(url && model, "HELIOS_URL or HELIOS_MODEL is not set: run `cargo xtask test --only clients`");

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
const request = {
  model,
  messages: [{ role: "user", content: "What is the capital of France? Answer in one sentence." }],
  temperature: 0,
  max_tokens: 24,
};

test("answers a question", async () => {
  const answer = await client.chat.completions.create(request);
  assert.match(answer.choices[0].message.content, /Paris/);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test("a stream is the same answer in pieces", async () => {
  const plain = await client.chat.completions.create(request);
  const pieces = [];
  const stream = await client.chat.completions.create({ ...request, stream: true });
  for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta?.content ?? "");
  assert.equal(pieces.join(""), plain.choices[0].message.content);
  assert.ok(pieces.length > 3);
});

test("a stream can be left", async () => {
  const stream = await client.chat.completions.create({ ...request, max_tokens: 200, stream: true });
  for await (const chunk of stream) {
    if (chunk.choices[0]?.delta?.content) break;
  }
  const next = await client.chat.completions.create({ ...request, max_tokens: 1 });
  assert.equal(next.usage.completion_tokens, 1);
});

test("an unknown model is an error with its code", async () => {
  await assert.rejects(client.chat.completions.create({ ...request, model: "nothing" }), (error) => {
    assert.equal(error.status, 404);
    assert.equal(error.code, "model_not_found");
    return true;
  });
});
