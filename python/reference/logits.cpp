// What llama.cpp computes, written down: log-probabilities under teacher forcing, and its own tokenisation.
//
//   logits score    MODEL.gguf TOKENS OUT [THREADS]
//   logits tokenize MODEL.gguf STRINGS OUT
//
// All files are little-endian. TOKENS: u32 sequences, then for each u32 length and that many u32 ids. OUT of `score`:
// for each sequence and each of its tokens but the first, u32 id, f32 log-sum-exp of the logits that predict it, f32
// its log-probability, then 64 times (u32 id, f32 log-probability) from the most probable down. STRINGS: u32 count,
// then for each u32 length and UTF-8 bytes. OUT of `tokenize`: for each string u32 length and that many u32 ids, special
// tokens parsed.
//
// The KV cache is F32 and flash attention is off, so that with an F32 model every step is in float32.

#include <llama.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

namespace {

constexpr size_t TOP = 64;

[[noreturn]] void fail(const std::string & message) {
    std::fprintf(stderr, "logits: %s\n", message.c_str());
    std::exit(1);
}

struct Reader {
    std::ifstream file;

    explicit Reader(const char * path) : file(path, std::ios::binary) {
        if (!file) {
            fail(std::string("cannot read ") + path);
        }
    }

    void bytes(void * target, size_t count) {
        if (!file.read(static_cast<char *>(target), static_cast<std::streamsize>(count))) {
            fail("input is truncated");
        }
    }

    uint32_t number() {
        uint32_t value = 0;
        bytes(&value, sizeof value);
        return value;
    }
};

struct Writer {
    std::ofstream file;

    explicit Writer(const char * path) : file(path, std::ios::binary) {}

    template <typename T> void value(T value) { file.write(reinterpret_cast<const char *>(&value), sizeof value); }

    void finish() {
        file.close();
        if (!file) {
            fail("cannot write the output");
        }
    }
};

llama_model * load(const char * path, bool vocab_only) {
    auto params       = llama_model_default_params();
    params.vocab_only = vocab_only;
    llama_model * model = llama_model_load_from_file(path, params);
    if (!model) {
        fail(std::string("cannot load ") + path);
    }
    return model;
}

// The reduction is in double precision: the reference must not add an error of its own.
double log_sum_exp(const std::vector<float> & logits) {
    const double largest = *std::max_element(logits.begin(), logits.end());
    double       sum     = 0;
    for (const float logit : logits) {
        sum += std::exp(logit - largest);
    }
    return largest + std::log(sum);
}

void write_position(Writer & out, const std::vector<float> & logits, uint32_t next) {
    const double lse = log_sum_exp(logits);
    out.value(next);
    out.value(static_cast<float>(lse));
    out.value(static_cast<float>(logits[next] - lse));
    std::vector<uint32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0u);
    const auto better = [&](uint32_t a, uint32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
    std::partial_sort(order.begin(), order.begin() + TOP, order.end(), better);
    for (size_t rank = 0; rank < TOP; ++rank) {
        out.value(order[rank]);
        out.value(static_cast<float>(logits[order[rank]] - lse));
    }
}

void score_sequence(llama_context * context, size_t vocabulary, const std::vector<llama_token> & tokens, Writer & out) {
    llama_memory_clear(llama_get_memory(context), true);
    llama_batch batch = llama_batch_init(static_cast<int32_t>(tokens.size()), 0, 1);
    batch.n_tokens    = static_cast<int32_t>(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
        batch.token[i]     = tokens[i];
        batch.pos[i]       = static_cast<llama_pos>(i);
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i]    = 1;
    }
    if (llama_decode(context, batch) != 0) {
        fail("llama_decode failed");
    }
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
        const float * logits = llama_get_logits_ith(context, static_cast<int32_t>(i));
        write_position(out, std::vector<float>(logits, logits + vocabulary), static_cast<uint32_t>(tokens[i + 1]));
    }
    llama_batch_free(batch);
}

std::vector<std::vector<llama_token>> read_sequences(const char * path) {
    Reader                                in(path);
    std::vector<std::vector<llama_token>> sequences(in.number());
    for (auto & tokens : sequences) {
        tokens.resize(in.number());
        in.bytes(tokens.data(), tokens.size() * sizeof(llama_token));
    }
    return sequences;
}

void score(const char * model_path, const char * tokens_path, const char * out_path, int threads) {
    const auto sequences = read_sequences(tokens_path);
    size_t     longest   = 0;
    for (const auto & tokens : sequences) {
        longest = std::max(longest, tokens.size());
    }
    llama_model * model    = load(model_path, false);
    auto          params   = llama_context_default_params();
    params.n_ctx           = static_cast<uint32_t>(longest);
    params.n_batch         = static_cast<uint32_t>(longest);
    params.n_threads       = threads;
    params.n_threads_batch = threads;
    params.type_k          = GGML_TYPE_F32;
    params.type_v          = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context * context = llama_init_from_model(model, params);
    if (!context) {
        fail("cannot make a context");
    }
    const auto vocabulary = static_cast<size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)));
    Writer     out(out_path);
    for (const auto & tokens : sequences) {
        score_sequence(context, vocabulary, tokens, out);
    }
    out.finish();
    llama_free(context);
    llama_model_free(model);
}

void tokenize(const char * model_path, const char * strings_path, const char * out_path) {
    llama_model *            model = load(model_path, true);
    const llama_vocab *      vocab = llama_model_get_vocab(model);
    Reader                   in(strings_path);
    Writer                   out(out_path);
    std::vector<llama_token> tokens;
    for (uint32_t left = in.number(); left > 0; --left) {
        std::string text(in.number(), '\0');
        in.bytes(text.data(), text.size());
        tokens.resize(text.size() + 8);
        const int32_t count = llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                                             static_cast<int32_t>(tokens.size()), false, true);
        if (count < 0) {
            fail("a string has more tokens than bytes");
        }
        out.value(static_cast<uint32_t>(count));
        std::for_each(tokens.begin(), tokens.begin() + count, [&](llama_token token) { out.value(token); });
    }
    out.finish();
    llama_model_free(model);
}

} // namespace

int main(int argc, char ** argv) {
    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level == GGML_LOG_LEVEL_ERROR) {
            std::fputs(text, stderr);
        }
    }, nullptr);
    llama_backend_init();
    const std::string mode = argc > 1 ? argv[1] : "";
    if (mode == "score" && (argc == 5 || argc == 6)) {
        score(argv[2], argv[3], argv[4], argc == 6 ? std::atoi(argv[5]) : 2);
    } else if (mode == "tokenize" && argc == 5) {
        tokenize(argv[2], argv[3], argv[4]);
    } else {
        fail("usage: logits score MODEL TOKENS OUT [THREADS] | logits tokenize MODEL STRINGS OUT");
    }
    llama_backend_free();
    return 0;
}
