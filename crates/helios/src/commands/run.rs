//! `helios run`: a conversation in the terminal, through the same API that every client uses.
//!
//! A running server that serves the model answers; where none does, the parts start in this process on a free port.

use std::io::{IsTerminal, Read, Write};

use anyhow::{Context, bail};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::cli::RunArgs;
use crate::config::Config;
use crate::server::Server;
use crate::sse::Events;

/// Chats until the input ends.
pub(crate) async fn run(config: &Config, args: &RunArgs) -> anyhow::Result<()> {
    let model = args.model.clone().unwrap_or_else(|| config.default_model().to_owned());
    let server = Server::find_or_start(config, &model).await?;
    let mut chat = Chat { server: &server, model, args, messages: opening(args) };
    let outcome = match question(args)? {
        Some(question) => chat.ask(question).await,
        None => chat.converse().await,
    };
    server.stop().await;
    outcome
}

fn opening(args: &RunArgs) -> Vec<Value> {
    args.system.iter().map(|text| json!({ "role": "system", "content": text })).collect()
}

/// The one question to ask, from the command line or from a pipe; `None` begins a conversation.
fn question(args: &RunArgs) -> anyhow::Result<Option<String>> {
    if args.prompt.is_some() || std::io::stdin().is_terminal() {
        return Ok(args.prompt.clone());
    }
    let mut piped = String::new();
    std::io::stdin().read_to_string(&mut piped).context("reading the question from standard input failed")?;
    if piped.trim().is_empty() {
        bail!(
            "nothing to ask\nhint: `helios run MODEL \"your question\"`, or start it in a terminal to chat"
        );
    }
    Ok(Some(piped))
}

struct Chat<'a> {
    server: &'a Server,
    model: String,
    args: &'a RunArgs,
    messages: Vec<Value>,
}

impl Chat<'_> {
    async fn converse(&mut self) -> anyhow::Result<()> {
        eprintln!(
            "{} · end with Ctrl-D or /bye, stop an answer with Ctrl-C, forget everything with /clear",
            self.model
        );
        loop {
            let Some(line) = next_line().await? else { break };
            match line.trim() {
                "" => {}
                "/bye" => break,
                "/clear" => self.messages = opening(self.args),
                _ => {
                    if let Err(error) = self.ask(line).await {
                        eprintln!("error: {error:#}");
                        self.messages.pop();
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks, prints the answer as it comes, and remembers both.
    async fn ask(&mut self, question: String) -> anyhow::Result<()> {
        self.messages.push(json!({ "role": "user", "content": question.trim_end() }));
        let mut answer = String::new();
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => eprint!(" (stopped)"),
            outcome = self.stream(&mut answer) => outcome?,
        }
        println!();
        self.messages.push(json!({ "role": "assistant", "content": answer }));
        Ok(())
    }

    async fn stream(&self, answer: &mut String) -> anyhow::Result<()> {
        let mut events = Events::post(self.server, "/v1/chat/completions", &self.body()).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            if let Some(text) = event["choices"][0]["delta"]["content"].as_str() {
                answer.push_str(text);
                print!("{text}");
                std::io::stdout().flush()?;
            }
        }
        Ok(())
    }

    fn body(&self) -> Value {
        let mut body = json!({ "model": self.model, "messages": self.messages, "stream": true });
        let args = self.args;
        let settings = [
            ("temperature", args.temperature.map(|value| json!(value))),
            ("max_tokens", args.max_tokens.map(|value| json!(value))),
            ("seed", args.seed.map(|value| json!(value))),
        ];
        for (name, value) in settings {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body
    }
}

/// The next line typed, or `None` at the end. Ctrl-C at the prompt ends too.
async fn next_line() -> anyhow::Result<Option<String>> {
    eprint!(">>> ");
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|bytes| (bytes > 0).then_some(line))
    });
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(None),
        line = read => Ok(line.context("reading a line failed")??),
    }
}
