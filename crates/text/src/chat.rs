//! Messages to tokens, such that no message can forge a special token.
//!
//! The template's own special tokens are parsed; the same text inside a message stays text. For this, every special
//! token's text in a message is broken by a sentinel (a character that occurs nowhere in the input) before rendering;
//! so are the edges of a message where its text could become part of a special token together with what stands beside
//! it. After rendering, special tokens are found in the marked text and the sentinels are taken out of the rest.
//!
//! Messages without such places, which is nearly all, are rendered untouched: the result is then that of plain
//! rendering and parsing, for every template. Two things remain possible: a template that deletes text from the middle
//! of a message can join a special token from what is left, and a special token of a single character cannot be broken.

use std::borrow::Cow;

use helios_types::TokenId;

use crate::{ChatMessage, ChatTemplate, SpecialText, TextError, Tokenizer};

/// Renders `messages` with the model's template and encodes them; no message content becomes a special token.
///
/// # Errors
/// Those of [`ChatTemplate::render`] and [`Tokenizer::encode`].
pub fn encode_chat(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[ChatMessage],
    add_generation_prompt: bool,
) -> Result<Vec<TokenId>, TextError> {
    let sentinel = unused_character(template, messages)?;
    let marked =
        messages.iter().map(|message| mark_message(tokenizer, message, sentinel)).collect::<Vec<_>>();
    let rendered = template.render(&marked, add_generation_prompt)?;
    let mut tokens = Vec::new();
    let mut start = 0;
    for (range, token) in tokenizer.find_special(&rendered) {
        tokens.extend(encode_plain(tokenizer, &rendered[start..range.start], sentinel)?);
        tokens.push(token);
        start = range.end;
    }
    tokens.extend(encode_plain(tokenizer, &rendered[start..], sentinel)?);
    Ok(tokens)
}

fn encode_plain(tokenizer: &Tokenizer, text: &str, sentinel: char) -> Result<Vec<TokenId>, TextError> {
    let text =
        if text.contains(sentinel) { Cow::Owned(text.replace(sentinel, "")) } else { Cow::Borrowed(text) };
    tokenizer.encode(&text, SpecialText::AsPlainText)
}

/// A character that neither the template nor a message contains: a noncharacter, else one of a private plane.
fn unused_character(template: &ChatTemplate, messages: &[ChatMessage]) -> Result<char, TextError> {
    let is_used = |candidate: char| {
        let in_message =
            |message: &ChatMessage| message.content.contains(candidate) || message.role.contains(candidate);
        template.source().contains(candidate) || messages.iter().any(in_message)
    };
    let mut candidates = ('\u{FDD0}'..='\u{FDEF}').chain('\u{F0000}'..='\u{F0FFF}');
    let none = || TextError::TemplateFailed { reason: "the messages use every private character".to_owned() };
    candidates.find(|candidate| !is_used(*candidate)).ok_or_else(none)
}

fn mark_message(tokenizer: &Tokenizer, message: &ChatMessage, sentinel: char) -> ChatMessage {
    let content = break_special(tokenizer, &message.content, sentinel);
    ChatMessage {
        role: break_special(tokenizer, &message.role, sentinel),
        content: mark_edges(tokenizer, content, sentinel),
    }
}

/// Puts a sentinel after the first character of every special token's text.
fn break_special(tokenizer: &Tokenizer, text: &str, sentinel: char) -> String {
    let mut broken = text.to_owned();
    for special in tokenizer.special_texts() {
        let mut characters = special.chars();
        if let Some(first) = characters.next().filter(|_| broken.contains(special)) {
            broken = broken.replace(special, &format!("{first}{sentinel}{}", characters.as_str()));
        }
    }
    broken
}

/// Puts sentinels around the text proper (white space aside, which a template may trim) where it could become part of
/// a special token that the text beside it completes.
fn mark_edges(tokenizer: &Tokenizer, mut text: String, sentinel: char) -> String {
    let start = text.len() - text.trim_start().len();
    let end = text.trim_end().len();
    if start >= end {
        return text;
    }
    let proper = &text[start..end];
    let at_start = tokenizer.special_texts().any(|special| could_end(special, proper));
    let at_end = tokenizer.special_texts().any(|special| could_begin(special, proper));
    if at_end {
        text.insert(end, sentinel);
    }
    if at_start {
        text.insert(start, sentinel);
    }
    text
}

/// Whether `text` begins with a proper end of `special`, or lies inside it.
fn could_end(special: &str, text: &str) -> bool {
    let ends = special.char_indices().skip(1).map(|(index, _)| &special[index..]);
    special.contains(text) || ends.into_iter().any(|end| text.starts_with(end))
}

/// Whether `text` ends with a proper beginning of `special`, or lies inside it.
fn could_begin(special: &str, text: &str) -> bool {
    let beginnings = special.char_indices().skip(1).map(|(index, _)| &special[..index]);
    special.contains(text) || beginnings.into_iter().any(|beginning| text.ends_with(beginning))
}
