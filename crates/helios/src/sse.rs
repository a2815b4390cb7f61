//! Server-sent events of a Helios server, as the terminal reads them.

use anyhow::bail;
use futures::stream::{BoxStream, Stream, StreamExt};
use helios_api::openai::DONE;
use serde_json::Value;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::server::Server;

/// The JSON events of one streamed answer. Ends after `[DONE]`; a stream that ends without it is an error.
pub(crate) struct Events {
    bytes: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    ready: VecDeque<anyhow::Result<Value>>,
    done: bool,
}

impl Events {
    /// Sends `body` and begins to read.
    pub(crate) async fn post(server: &Server, path: &str, body: &Value) -> anyhow::Result<Self> {
        let response = server.request(reqwest::Method::POST, path).json(body).send().await?;
        if !response.status().is_success() {
            let status = response.status();
            let text = response.text().await?;
            bail!(error_message(&text).unwrap_or_else(|| format!("the server answered {status}")));
        }
        let bytes = response.bytes_stream().map(|chunk| chunk.map(|chunk| chunk.to_vec())).boxed();
        Ok(Self { bytes, buffer: Vec::new(), ready: VecDeque::new(), done: false })
    }

    fn take_events(&mut self) {
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let event = String::from_utf8_lossy(&event);
            for data in event.lines().filter_map(|line| line.strip_prefix("data: ")) {
                if data == DONE {
                    self.done = true;
                } else {
                    self.ready.push_back(read_event(data));
                }
            }
        }
    }
}

fn read_event(data: &str) -> anyhow::Result<Value> {
    match error_message(data) {
        Some(message) => bail!(message),
        None => Ok(serde_json::from_str(data)?),
    }
}

/// The message of an error envelope.
pub(crate) fn error_message(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    value["error"]["message"].as_str().map(str::to_owned)
}

impl Stream for Events {
    type Item = anyhow::Result<Value>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(event));
            }
            if self.done {
                return Poll::Ready(None);
            }
            match futures::ready!(self.bytes.poll_next_unpin(context)) {
                Some(Ok(chunk)) => {
                    self.buffer.extend_from_slice(&chunk);
                    self.take_events();
                }
                Some(Err(error)) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    self.done = true;
                    return Poll::Ready(Some(Err(anyhow::anyhow!("the server ended the answer half-way"))));
                }
            }
        }
    }
}
