// One clip through the three TensorRT engines of a bundle, in C++: encoder -> merge -> splice -> prefill ->
// decode.
//
//   ltbm_example BUNDLE/engines/KEY BUNDLE/embeddings.npy libltbm_tensorrt.so REQUEST > token_ids
//
// REQUEST is a folder that prepare.py wrote: the clip's log-mels, the prompt's token ids and the level.
// Between the stages nothing comes back to the host: merge writes into the audio's place in the LLM's input.
#include <cuda_fp16.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>

#include "npy.h"
#include "stage.h"

namespace ltbm {
namespace {

constexpr int64_t BUCKET = 64;  // tokens: capacities of the KV cache are multiples, as in the Python runtime

// Rows of embeddings.npy in the type of the decoder's inputs_embeds.
class Embeddings {
 public:
  Embeddings(const std::string& path, nvinfer1::DataType wanted)
      : table_(path), half_(wanted == nvinfer1::DataType::kHALF) {
    check(table_.shape.size() == 2, path + " is no table");
    check(half_ || wanted == nvinfer1::DataType::kFLOAT, "inputs_embeds is neither float16 nor float32");
    check(table_.type == "<f4" || table_.type == "<f2" || table_.type == "<u2",
          path + " has an unknown type, " + table_.type);
  }
  int64_t width() const { return table_.shape[1]; }
  size_t row_bytes() const { return width() * (half_ ? 2 : 4); }

  std::vector<char> rows(const std::vector<int64_t>& token_ids) const {
    std::vector<char> made(token_ids.size() * row_bytes());
    for (size_t place = 0; place < token_ids.size(); ++place) {
      check(token_ids[place] >= 0 && token_ids[place] < table_.shape[0],
            "token id " + std::to_string(token_ids[place]) + " is not in the table");
      for (int64_t i = 0; i < width(); ++i)
        write(made.data() + place * row_bytes(), i, value(token_ids[place] * width() + i));
    }
    return made;
  }

 private:
  float value(int64_t index) const {
    if (table_.type == "<f4") return reinterpret_cast<const float*>(table_.data)[index];
    if (table_.type == "<f2") return __half2float(reinterpret_cast<const __half*>(table_.data)[index]);
    const uint32_t bits = uint32_t{reinterpret_cast<const uint16_t*>(table_.data)[index]} << 16;  // bfloat16
    float number;
    std::memcpy(&number, &bits, sizeof(number));
    return number;
  }
  void write(char* row, int64_t i, float number) const {
    if (half_)
      reinterpret_cast<__half*>(row)[i] = __float2half(number);
    else
      reinterpret_cast<float*>(row)[i] = number;
  }

  Npy table_;
  bool half_;
};

// The prompt around its one audio: `before` tokens, the audio's `target` kept tokens, then the rest.
struct Layout {
  std::vector<int64_t> before, after;
  int64_t target, total, first_after, next_position;

  explicit Layout(const Request& request) : target(request["target"]) {
    const std::vector<int64_t> prompt = request.all("prompt_ids");
    const auto audio = std::find(prompt.begin(), prompt.end(), request["audio_token_id"]);
    check(audio != prompt.end(), "the prompt has no audio token");
    before.assign(prompt.begin(), audio);
    after.assign(audio + 1, prompt.end());
    total = static_cast<int64_t>(before.size() + after.size()) + target;
    // With original positions the text after the audio stands as if nothing had been merged.
    first_after =
        static_cast<int64_t>(before.size()) + (request["original_positions"] ? request["tokens"] : target);
    next_position = first_after + static_cast<int64_t>(after.size());
  }
};

// What the LLM reads before it answers: S tokens on the device, and the weights of all cached keys.
struct Prefix {
  Buffer inputs_embeds, position_ids, key_bias;
};

Prefix splice_text(const Layout& layout, const Embeddings& embeddings, int64_t capacity,
                   const Stream& stream) {
  Prefix made{{layout.total * embeddings.row_bytes(), stream},
              {layout.total * sizeof(int64_t), stream},
              {capacity * sizeof(float), stream}};
  const auto put = [&](const std::vector<int64_t>& ids, int64_t place, int64_t position) {
    const std::vector<char> rows = embeddings.rows(ids);
    std::vector<int64_t> positions(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) positions[i] = position + static_cast<int64_t>(i);
    made.inputs_embeds.write(rows.data(), rows.size(), place * embeddings.row_bytes(), stream);
    made.position_ids.write(positions.data(), positions.size() * sizeof(int64_t), place * sizeof(int64_t),
                            stream);
    stream.wait();  // rows and positions live no longer
  };
  put(layout.before, 0, 0);
  put(layout.after, static_cast<int64_t>(layout.before.size()) + layout.target, layout.first_after);
  return made;
}

// Encoder and merge: from log-mels [1, n_mels, F] to the audio's place in the prefix.
void hear(nvinfer1::IRuntime& runtime, const std::string& engines, const std::string& folder,
          const Request& request, const Layout& layout, const Embeddings& embeddings,
          nvinfer1::DataType wanted, const Prefix& prefix, const Stream& stream) {
  Stage encoder(runtime, engines + "/encoder.engine"), merge(runtime, engines + "/merge.engine");
  check(merge.type("merged_embeds") == wanted,
        "merge and decoder work in different types: export with --encoder-precision like --activations");
  const Npy features(folder + "/input_features.npy");
  check(features.type == "<f4" && features.shape.size() == 3,
        "input_features.npy is not float32 [1, n_mels, F]");
  const int64_t frames = features.shape[2], tokens = request["encoder_tokens"], slots = layout.target,
                place = static_cast<int64_t>(layout.before.size());
  const std::vector<int64_t> embeds_shape{1, tokens, encoder.shape("audio_embeds")[2]};

  const Buffer input_features(features.shape[1] * frames * sizeof(float), stream);
  input_features.write(features.data, features.shape[1] * frames * sizeof(float), 0, stream);
  const auto number = [&](const char* name) {
    return Buffer::of<int32_t>({static_cast<int32_t>(request[name])}, stream);
  };
  const Buffer frame_length = number("frame_length"), length = number("tokens"), target = number("target"),
               window = number("window"), original = number("original_positions"),
               strength = Buffer::of<float>({static_cast<float>(request.real("bias_strength"))}, stream),
               first = Buffer::of<int64_t>({place}, stream), segment_index = Buffer::of<int32_t>({0}, stream);
  const Buffer audio_embeds(tokens * embeds_shape[2] * encoder.itemsize("audio_embeds"), stream);
  const Buffer sizes(slots * sizeof(int32_t), stream), anchors(slots * sizeof(int32_t), stream),
      source_map(tokens * sizeof(int32_t), stream);
  // TensorRT wants addresses aligned to 256 bytes, which a slot of the prefix need not be: hence buffers of
  // their own.
  const size_t embeds_bytes = slots * embeddings.row_bytes(), position_bytes = slots * sizeof(int64_t),
               bias_bytes = slots * sizeof(float);
  const Buffer merged(embeds_bytes, stream), positions(position_bytes, stream), bias(bias_bytes, stream);
  int64_t keep = slots;  // a shape: TensorRT reads it on the host

  // Of the two numbers an encoder takes those that its model needs.
  encoder.enqueue({{"input_features", {input_features.at(), features.shape}},
                   {"frame_lengths", {frame_length.at(), {1}}},
                   {"segment_index", {segment_index.at(), {1}}},
                   {"audio_embeds", {audio_embeds.at(), {}}}},
                  stream);
  merge.enqueue({{"audio_embeds", {audio_embeds.at(), embeds_shape}},
                 {"lengths", {length.at(), {1}}},
                 {"targets", {target.at(), {1}}},
                 {"keep", {&keep, {1}}},
                 {"window", {window.at(), {1}}},
                 {"first_position", {first.at(), {1}}},
                 {"original_positions", {original.at(), {1}}},
                 {"bias_strength", {strength.at(), {1}}},
                 {"merged_embeds", {merged.at(), {}}},
                 {"position_ids", {positions.at(), {}}},
                 {"key_bias", {bias.at(), {}}},
                 {"sizes", {sizes.at(), {}}},
                 {"anchors", {anchors.at(), {}}},
                 {"source_map", {source_map.at(), {}}}},
                stream);
  prefix.inputs_embeds.copy(merged, embeds_bytes, place * embeddings.row_bytes(), stream);
  prefix.position_ids.copy(positions, position_bytes, place * sizeof(int64_t), stream);
  prefix.key_bias.copy(bias, bias_bytes, place * sizeof(float), stream);
  stream.wait();  // the engines and the buffers of this stage go now: the LLM needs the memory
}

// The LLM with its KV cache: in place and of fixed capacity (decoder.trt24, TensorRT 10.15 and newer), or
// growing from one buffer into another (decoder.concat20).
class Decoder {
 public:
  Decoder(nvinfer1::IRuntime& runtime, const std::string& path, int64_t needed, const Stream& stream)
      : stage_(runtime, path), stream_(stream), in_place_(stage_.has("past_len")) {
    const std::vector<int64_t> past = stage_.shape("past.0.key");
    heads_ = past[1];
    head_dim_ = past[3];
    capacity_ = bucket(needed);
    if (in_place_) {
      check(stage_.updates_in_place("present.0.key", "past.0.key"),
            path + " wants a cache in place, which this TensorRT does not do");
      check(past[2] > 0, path + " is not of fixed capacity: build it with `ltbm build`");
      check(needed <= past[2], "prompt and answer take " + std::to_string(needed) + " tokens, " + path +
                                   " holds " + std::to_string(past[2]) +
                                   ": build it with a larger --max-context");
      capacity_ = past[2];
    }
    const size_t bytes = heads_ * capacity_ * head_dim_ * stage_.itemsize("past.0.key");
    for (int layer = 0; stage_.has("past." + std::to_string(layer) + ".key"); ++layer)
      for (const char* part : {".key", ".value"}) {
        names_.push_back(std::to_string(layer) + part);
        past_.emplace_back(bytes, stream);
        if (!in_place_) present_.emplace_back(bytes, stream);
      }
    vocabulary_ = stage_.shape("logits")[1];
    logits_ = Buffer(vocabulary_ * sizeof(float), stream);
    past_len_ = Buffer(sizeof(int32_t), stream);
    last_index_ = Buffer(sizeof(int32_t), stream);
  }

  nvinfer1::DataType embeds_type() const { return stage_.type("inputs_embeds"); }
  int64_t capacity() const { return capacity_; }

  // The likeliest token after `count` more: inputs_embeds [1, count, H], position_ids [1, count], key_bias
  // [capacity].
  int64_t next(void* inputs_embeds, void* position_ids, void* key_bias, int64_t count, int64_t width) {
    const int32_t past = static_cast<int32_t>(length_), last = static_cast<int32_t>(count) - 1;
    past_len_.write(&past, sizeof(past), 0, stream_);
    last_index_.write(&last, sizeof(last), 0, stream_);
    const int64_t used = in_place_ ? capacity_ : length_;
    // In place, attention reads the tokens that are there, in buckets.
    const int64_t bias = in_place_ ? std::min(bucket(length_ + count), capacity_) : length_ + count;
    Tensors tensors{{"inputs_embeds", {inputs_embeds, {1, count, width}}},
                    {"position_ids", {position_ids, {1, count}}},
                    {"key_bias", {key_bias, {1, bias}}},
                    {"last_index", {last_index_.at(), {1}}},
                    {"logits", {logits_.at(), {}}}};
    if (in_place_) tensors["past_len"] = {past_len_.at(), {1}};
    for (size_t i = 0; i < names_.size(); ++i) {
      tensors["past." + names_[i]] = {past_[i].at(), {1, heads_, used, head_dim_}};
      tensors["present." + names_[i]] = {in_place_ ? past_[i].at() : present_[i].at(), {}};
    }
    stage_.enqueue(tensors, stream_);
    if (!in_place_) std::swap(past_, present_);
    length_ += count;
    std::vector<float> logits(vocabulary_);
    logits_.read(logits.data(), logits.size() * sizeof(float), stream_);
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  }

 private:
  static int64_t bucket(int64_t tokens) { return (tokens + BUCKET - 1) / BUCKET * BUCKET; }

  Stage stage_;
  const Stream& stream_;
  const bool in_place_;
  int64_t heads_ = 0, head_dim_ = 0, capacity_ = 0, vocabulary_ = 0, length_ = 0;
  std::vector<std::string> names_;  // 0.key, 0.value, 1.key ...
  std::vector<Buffer> past_, present_;
  Buffer logits_, past_len_, last_index_;
};

// Greedy decoding until an end token or the limit.
std::vector<int64_t> answer(Decoder& decoder, const Layout& layout, const Embeddings& embeddings,
                            const Prefix& prefix, const Request& request, const Stream& stream) {
  const std::vector<int64_t> ends = request.all("eos_token_ids");
  const auto ended = [&](int64_t token) { return std::find(ends.begin(), ends.end(), token) != ends.end(); };
  std::vector<int64_t> token_ids{decoder.next(prefix.inputs_embeds.at(), prefix.position_ids.at(),
                                              prefix.key_bias.at(), layout.total, embeddings.width())};
  const Buffer embeds(embeddings.row_bytes(), stream), position(sizeof(int64_t), stream);
  for (int64_t place = layout.next_position;
       !ended(token_ids.back()) && static_cast<int64_t>(token_ids.size()) < request["max_new_tokens"];
       ++place) {
    const std::vector<char> row = embeddings.rows({token_ids.back()});
    embeds.write(row.data(), row.size(), 0, stream);
    position.write(&place, sizeof(place), 0, stream);
    token_ids.push_back(
        decoder.next(embeds.at(), position.at(), prefix.key_bias.at(), 1, embeddings.width()));
  }
  return token_ids;
}

void run(const std::string& engines, const std::string& table, const std::string& plugin,
         const std::string& folder) {
  using Clock = std::chrono::steady_clock;
  Logger logger;
  const std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
  check(runtime != nullptr, "TensorRT does not start: see its message above");
  check(runtime->getPluginRegistry().loadLibrary(plugin.c_str()) != nullptr,
        plugin + " does not load as a TensorRT plugin: see the message above");
  const Stream stream;
  const Request request(folder + "/request.txt");
  const Layout layout(request);

  Decoder decoder(*runtime, engines + "/decoder.engine", layout.total + request["max_new_tokens"], stream);
  const Embeddings embeddings(table, decoder.embeds_type());
  const auto started = Clock::now();
  const Prefix prefix = splice_text(layout, embeddings, decoder.capacity(), stream);
  hear(*runtime, engines, folder, request, layout, embeddings, decoder.embeds_type(), prefix, stream);
  const std::vector<int64_t> token_ids = answer(decoder, layout, embeddings, prefix, request, stream);
  const double milliseconds = std::chrono::duration<double, std::milli>(Clock::now() - started).count();

  for (const int64_t token : token_ids) std::printf("%lld ", static_cast<long long>(token));
  std::printf("\n");
  std::fprintf(
      stderr,
      "%lld audio tokens -> %lld, %zu tokens answered, %.1f ms with the loading of encoder and merge\n",
      static_cast<long long>(request["tokens"]), static_cast<long long>(layout.target), token_ids.size(),
      milliseconds);
}

}  // namespace
}  // namespace ltbm

int main(int count, char** words) {
  if (count != 5) {
    std::fprintf(stderr, "usage: %s BUNDLE/engines/KEY BUNDLE/embeddings.npy libltbm_tensorrt.so REQUEST\n",
                 words[0]);
    return 2;
  }
  try {
    ltbm::run(words[1], words[2], words[3], words[4]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ltbm_example: %s\n", error.what());
    return 1;
  }
}
