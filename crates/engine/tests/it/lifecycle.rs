//! Bounds, cancellation, faults and the end of an engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use helios_engine::{
    Engine, EngineError, EngineHandle, EngineOptions, Event, FinishReason, Model, Request, Sampling,
};
use helios_types::{Classify, ErrorCode, TensorType};

use crate::harness::{answer, collect, options, roomy};
use crate::tiny_model::{CONTEXT, Random, TinyModel, VOCAB};

fn model() -> Arc<Model> {
    TinyModel::gguf(TensorType::Q8_0, true).open()
}

fn request(max_tokens: usize) -> Request {
    Request { prompt: Random(1).tokens(20), max_tokens, sampling: Sampling::greedy(), ..Request::default() }
}

fn code(engine: &EngineHandle, request: Request) -> ErrorCode {
    engine.submit(request).expect_err("this request should be refused").code()
}

#[test]
fn impossible_requests_are_refused_when_they_are_submitted() {
    let engine = roomy(&model());
    let invalid = [
        Request { prompt: Vec::new(), ..request(1) },
        Request { prompt: vec![VOCAB as u32], ..request(1) },
        Request { stop_tokens: vec![VOCAB as u32], ..request(1) },
        Request { emitted: vec![1, 2], ..request(1) },
        Request { logprobs: Some(21), ..request(1) },
        Request { sampling: Sampling { temperature: f32::NAN, ..Sampling::default() }, ..request(1) },
        Request { sampling: Sampling { top_p: 0.0, ..Sampling::default() }, ..request(1) },
        Request {
            sampling: Sampling { logit_bias: vec![(VOCAB as u32, 1.0)], ..Sampling::default() },
            ..request(1)
        },
        request(0),
    ];
    for request in invalid {
        assert_eq!(code(&engine, request.clone()), ErrorCode::InvalidRequest, "{request:?}");
    }
    assert_eq!(code(&engine, request(CONTEXT - 19)), ErrorCode::ContextLengthExceeded);
    assert_eq!(code(&engine, request(usize::MAX)), ErrorCode::ContextLengthExceeded);
    let small = Engine::start(model(), options(1, 3)).unwrap();
    assert_eq!(small.context_tokens_max(), 48);
    assert_eq!(code(&small, request(29)), ErrorCode::ContextLengthExceeded);
    assert_eq!(answer(&small, request(28)).tokens.len(), 28);
}

#[test]
fn options_without_room_for_a_block_are_refused() {
    for (blocks, sequences_max, step_tokens_min) in [(0, 32, 16), (8, 0, 16), (8, 32, 0), (8, 32, 513)] {
        let options = EngineOptions { sequences_max, step_tokens_min, ..options(1, blocks) };
        assert!(matches!(Engine::start(model(), options), Err(EngineError::Options { .. })));
    }
}

#[test]
fn a_full_queue_says_so_and_empties_again() {
    let gate = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&gate);
    let observer = Arc::new(move |_: &_| while !seen.load(Ordering::Acquire) {});
    let options =
        EngineOptions { sequences_max: 1, queue_max: 2, observer: Some(observer), ..options(1, 64) };
    let engine = Engine::start(model(), options).unwrap();
    let streams: Vec<_> = (0..3).map(|_| engine.submit(request(2)).unwrap()).collect();
    let error = engine.submit(request(2)).unwrap_err();
    assert!(matches!(error, EngineError::QueueFull { in_flight: 3 }) && error.is_retryable());
    gate.store(true, Ordering::Release);
    streams.into_iter().for_each(|stream| assert_eq!(collect(stream).tokens.len(), 2));
    assert_eq!(answer(&engine, request(2)).tokens.len(), 2);
}

#[test]
fn a_dropped_stream_frees_its_blocks_within_a_step() {
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    let observer = Arc::new(move |_: &_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let engine =
        Engine::start(model(), EngineOptions { observer: Some(observer), ..options(1, 64) }).unwrap();
    let mut stream = engine.submit(request(400)).unwrap();
    while !matches!(stream.blocking_next(), Some(Event::Token(_))) {}
    drop(stream);
    let at_drop = steps.load(Ordering::SeqCst);
    let mut status = engine.status();
    while status.borrow().kv_blocks_used > 0 || status.borrow().running > 0 {
        std::thread::yield_now();
    }
    // The step that was under way, and the one that may have begun while this thread read the counter.
    assert!(steps.load(Ordering::SeqCst) <= at_drop + 2);
    assert!(status.borrow_and_update().generated_tokens_total < 400);
}

#[test]
fn a_panic_in_a_step_fails_its_requests_and_nothing_else() {
    let armed = Arc::new(AtomicBool::new(true));
    let trigger = Arc::clone(&armed);
    let observer = Arc::new(move |report: &helios_engine::StepReport| {
        if report.decode_tokens > 0 && trigger.swap(false, Ordering::SeqCst) {
            panic!("injected");
        }
    });
    let model = model();
    let engine =
        Engine::start(Arc::clone(&model), EngineOptions { observer: Some(observer), ..options(2, 64) })
            .unwrap();
    let failed = answer(&engine, request(8));
    assert!(matches!(failed.error, Some(EngineError::Internal { ref problem }) if problem == "injected"));
    assert_eq!(answer(&engine, request(8)).tokens, answer(&roomy(&model), request(8)).tokens);
    engine.shutdown();
    let status = engine.status().borrow().clone();
    assert_eq!((status.failures_total, status.kv_blocks_used), (1, 0));
}

#[test]
fn stop_tokens_end_an_answer_and_are_not_part_of_it() {
    let engine = roomy(&model());
    let whole = answer(&engine, request(30));
    assert_eq!(whole.finish.unwrap().reason, FinishReason::Length);
    let token = whole.tokens[12];
    let first = whole.tokens.iter().position(|&other| other == token).unwrap();
    let stopped = answer(&engine, Request { stop_tokens: vec![token], ..request(30) });
    let finish = stopped.finish.unwrap();
    assert_eq!(stopped.tokens, whole.tokens[..first]);
    assert_eq!((finish.reason, finish.completion_tokens), (FinishReason::Stop { token }, first));
    let late = answer(&engine, Request { stop_tokens: vec![token], min_tokens: 20, ..request(30) });
    assert!(late.tokens.len() >= 20 && !late.tokens.contains(&token));
}

#[test]
fn shutdown_finishes_what_runs_as_cancelled_and_refuses_what_comes() {
    let engine = roomy(&model());
    let stream = engine.submit(request(450)).unwrap();
    engine.shutdown();
    let ended = collect(stream);
    assert!(matches!(ended.finish.unwrap().reason, FinishReason::Cancelled | FinishReason::Length));
    assert!(matches!(engine.submit(request(1)), Err(EngineError::Stopped { .. })));
}

#[test]
fn an_engine_is_ready_after_its_first_token() {
    let engine = roomy(&model());
    assert!(!engine.status().borrow().ready);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(engine.warm_up()).unwrap();
    engine.shutdown();
    assert!(engine.status().borrow().ready);
}
