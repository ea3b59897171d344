// tokenizer.json: a file is refused in one line, or encodes and decodes any text.
#include <fstream>

#include <unistd.h>

#include "data/text/tokenizer.h"
#include "recipes/diagnostic.h"
#include "tests/fuzz/driver.h"

namespace temper::fuzz {
namespace {

namespace fs = std::filesystem;

// A model directory that holds the input as tokenizer.json.
class ModelDirectory {
 public:
  ModelDirectory()
      : path_(fs::temp_directory_path() / ("temper_tokenizer_fuzz_" + std::to_string(getpid()))) {
    fs::create_directories(path_);
  }
  ~ModelDirectory() { fs::remove_all(path_); }
  const fs::path& write(std::string_view input) {
    std::ofstream(path_ / "tokenizer.json", std::ios::binary) << input;
    return path_;
  }

 private:
  fs::path path_;
};

void run(std::string_view input, const fs::path&) {
  static ModelDirectory directory;
  try {
    const data::Tokenizer tokenizer = data::Tokenizer::load(directory.write(input));
    for (const std::string_view text :
         {"", " ab <s>  b-1, E\xCC\x81\n", "\xEA\xB0\x80\xE2\x91\xA0 \xFF\xF0\x9F\x99\x82"}) {
      const data::Encoding encoding = tokenizer.encode_with_offsets(text);
      tokenizer.decode(encoding.ids, false);
      tokenizer.decode(encoding.ids, true);
      tokenizer.encode_pair(text, " ab <s>  b-1", true,
                            data::Truncation{.max_length = 5, .stride = 1});
    }
  } catch (const UserError&) {  // refused, as most are
  } catch (const RunError&) {   // a pattern that takes too long
  }
}

// A whole file around the parts that matter.
std::string file(const std::string& model, const std::string& normalizer,
                 const std::string& pre_tokenizer, const std::string& rest) {
  return R"({"version":"1.0","added_tokens":[{"id":0,"content":"<s>","lstrip":true,"special":true}],)"
         R"("normalizer":)" +
         normalizer + R"(,"pre_tokenizer":)" + pre_tokenizer + "," + rest + R"(,"model":)" + model +
         "}";
}

}  // namespace

Target target() {
  const std::string bpe =
      R"({"type":"BPE","unk_token":"u","fuse_unk":true,"byte_fallback":true,"vocab":)"
      R"({"u":0,"a":1,"b":2,"ab":3,"<0xFF>":4,"Ġ":5},"merges":["a b"]})";
  const std::string wordpiece =
      R"({"type":"WordPiece","unk_token":"u","continuing_subword_prefix":"##",)"
      R"("max_input_chars_per_word":9,"vocab":{"u":0,"a":1,"##b":2}})";
  const std::string unigram =
      R"({"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[["u",0],["a",-1.5],["ab",-2]]})";
  return {
      .suffix = ".json",
      .seeds = {file(bpe, "null",
                     R"({"type":"ByteLevel","add_prefix_space":true,"use_regex":true})",
                     R"("post_processor":{"type":"ByteLevel","trim_offsets":true,)"
                     R"("add_prefix_space":true},"decoder":{"type":"ByteLevel"})"),
                file(wordpiece,
                     R"({"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,)"
                     R"("strip_accents":null,"lowercase":true})",
                     R"({"type":"BertPreTokenizer"})",
                     R"("post_processor":{"type":"BertProcessing","sep":["u",0],"cls":["a",1]},)"
                     R"("decoder":{"type":"WordPiece","prefix":"##","cleanup":true})"),
                file(unigram,
                     R"({"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Nmt"},)"
                     R"({"type":"Precompiled","precompiled_charsmap":"CAAAAAAEAAAAAAAAYQA="},)"
                     R"({"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}]})",
                     R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"first"})",
                     R"("decoder":{"type":"Metaspace","replacement":"▁"})"),
                file(R"({"type":"WordLevel","unk_token":"u","vocab":{"u":0,"a":1}})",
                     R"({"type":"Strip","strip_left":true,"strip_right":true})",
                     R"({"type":"Sequence","pretokenizers":[{"type":"UnicodeScripts"},)"
                     R"({"type":"FixedLength","length":2},{"type":"Split","pattern":)"
                     R"({"String":"-"},"behavior":"MergedWithNext","invert":true}]})",
                     R"("decoder":{"type":"CTC","pad_token":"u","word_delimiter_token":"|",)"
                     R"("cleanup":true})")},
      .words = {"null",
                "true",
                "[]",
                "{}",
                "\"\"",
                "-1",
                "16777215",
                "1e308",
                "\"type\"",
                "\"ByteLevel\"",
                "\"NFD\"",
                "\"StripAccents\"",
                "\"Lowercase\"",
                "\"Prepend\"",
                "\"prepend\"",
                "\"Whitespace\"",
                "\"Digits\"",
                "\"Punctuation\"",
                "\"Sequence\"",
                "\"BPEDecoder\"",
                "\"suffix\"",
                "\"TemplateProcessing\"",
                "\"single\"",
                "\"SpecialToken\"",
                "\"Regex\"",
                "\"ignore_merges\"",
                "\"end_of_word_suffix\"",
                "\"<0x00>\"",
                "\"▁\""},
      .run = run};
}

}  // namespace temper::fuzz
