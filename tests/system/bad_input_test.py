"""Bad input ends in exit code 2 and one line a finding: file, key or row, what is allowed. Nothing half written."""

import gzip
import json
import os
import shutil
import struct
import subprocess
import time
import unittest

from harness import SOURCE, TINY, SystemTest

# Each case: a name, the overrides, and what the one line must say.
RECIPE_CASES = [
    ("misspelt key", ["optimizer.lrr=1"], r"optimizer\.lrr.*optimizer\.lr|lrr.*\blr\b"),
    ("misspelt table", ["optimiser.lr=1"], r"optimiser.*optimizer"),
    ("wrong type", ["optimizer.lr=fast"], r"optimizer\.lr"),
    ("negative lr", ["optimizer.lr=-1"], r"optimizer\.lr"),
    ("bad choice", ["data.packing=bdf"], r"data\.packing.*bfd"),
    ("unknown objective", ["objective.kind=sftt"], r"objective\.kind.*sft"),
    ("later objective", ["objective.kind=dpo"], r"objective\.kind.*dpo.*sft"),
    ("later initialisation", ["peft.init_lora_weights=corda"], r"peft\.init_lora_weights.*pissa"),
    ("quantised without adapter", ["model.quantize=nf4"], r"model\.quantize.*peft"),
    ("shards without ranks", ["parallel.shard=2"], r"parallel\.shard.*there is 1 rank"),
    ("later tensor axis", ["parallel.tensor=2"], r"parallel\.tensor"),
    ("later noise", ["train.neftune_noise_alpha=5"], r"train\.neftune_noise_alpha"),
    ("later export", ['export.format=["gguf"]'], r"export\.format.*safetensors"),
    ("end of a stream", ["data.streaming=true", "data.drop_last=true"], r"data\.drop_last.*data\.streaming = true"),
    ("buffer without a stream", ["data.shuffle_buffer=10"], r"data\.shuffle_buffer.*data\.streaming = false"),
    ("packed groups", ["data.group_by_length=true"], r"data\.group_by_length.*data\.packing = \"none\""),
    ("global not a multiple", ["batch.global=7"], r"batch\.global=7.*6.*8"),
    ("zero micro", ["batch.micro=0"], r"batch\.micro"),
    ("unknown schedule", ["schedule.kind=cosin"], r"schedule\.kind.*cosine"),
    ("foreign schedule key", ["schedule.power=2"], r"schedule\.power"),
    ("decay steps missing", ["schedule.kind=warmup_stable_decay"], r"num_decay_steps"),
    ("min_lr missing", ["schedule.kind=cosine_with_min_lr"], r"min_lr"),
    ("run name is a path", ["run.name=a/b"], r"run\.name"),
    ("model missing", ["model.path=nowhere"], r"model\.path.*nowhere"),
    ("data missing", ["data.train.0.path=trian.jsonl"], r"trian\.jsonl.*train\.jsonl"),
    ("data index too far", ["data.train.5.path=x.jsonl"], r"data\.train"),
    ("max_length above the model's", ["data.max_length=1000"], r"data\.max_length = 1000.*512"),
    ("nothing trainable", ['train.trainable=["nothing"]'], r"train\.trainable"),
    ("bad regular expression", ['train.frozen=["("]'], r"train\.frozen"),
    ("unknown format", ["data.format=chatml"], r"data\.format"),
    ("not an override", ["lr"], r"lr"),
    ("must resume nothing", ["run.resume=must"], r"run\.resume"),
    ("unknown eval metric", ["eval.metric=eval_los", "eval.at_start=true"], r"eval\.metric.*eval_loss"),
]


class Refusing(SystemTest):
    def refuse(self, *overrides, says, lines=1, ranks=1, command="train"):
        start = time.monotonic()
        result = self.run_temper(command, self.write_recipe(), *overrides, ranks=ranks)
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
        own = [line for line in result.stderr.splitlines() if line.strip()]
        if ranks == 1:
            self.assertEqual(len(own), lines, result.stderr)
        self.assertRegex(result.stderr, says)
        self.assertFalse((self.directory / "runs").exists() and any((self.directory / "runs").iterdir()), "a run directory was left")
        return result


class BadRecipe(Refusing):
    def test_recipes(self):
        for name, overrides, says in RECIPE_CASES:
            with self.subTest(name):
                self.refuse(*overrides, says=says)

    def test_all_findings_at_once(self):
        self.refuse("optimizer.lrr=1", "data.packing=bdf", "batch.micro=0", says="lrr", lines=3)

    def test_one_rank_speaks_for_all(self):
        result = self.refuse("optimizer.lrr=1", says="lrr", ranks=2)
        self.assertEqual(result.stderr.count("lrr"), 1, result.stderr)

    def test_syntax_error_names_line_and_column(self):
        (self.directory / "broken.toml").write_text("[run]\nname = \n")
        result = self.run_temper("train", "broken.toml")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, r"broken\.toml:2")

    def test_missing_recipe(self):
        result = self.run_temper("train", "missing.toml")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, r"missing\.toml")


class BadModel(Refusing):
    """Model files that lie."""

    def setUp(self):
        super().setUp()
        # Weights of the right shapes: what a run exports.
        self.assert_done(self.run_temper("train", self.write_recipe(), "train.steps=1"))
        shutil.rmtree(self.directory / "model")
        shutil.move(self.directory / "runs/test/export", self.directory / "model")
        shutil.rmtree(self.directory / "runs")
        self.file = self.directory / "model/model.safetensors"

    def header(self):
        data = self.file.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        return json.loads(data[8 : 8 + length]), data[8 + length :]

    def write(self, header, body):
        text = json.dumps(header).encode()
        self.file.write_bytes(struct.pack("<Q", len(text)) + text + body)

    def refuse_model(self, says):
        return self.refuse("model.init=pretrained", says=says)

    def test_header_length_lies(self):
        data = self.file.read_bytes()
        self.file.write_bytes(struct.pack("<Q", 1 << 60) + data[8:])
        self.refuse_model(r"model\.safetensors")

    def test_truncated_file(self):
        data = self.file.read_bytes()
        self.file.write_bytes(data[: len(data) // 2])
        self.refuse_model(r"model\.safetensors")

    def test_header_is_not_json(self):
        self.file.write_bytes(struct.pack("<Q", 4) + b"nope" + b"\0" * 100)
        self.refuse_model(r"model\.safetensors")

    def test_overlapping_tensors(self):
        header, body = self.header()
        names = [n for n in header if n != "__metadata__"]
        header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
        self.write(header, body)
        self.refuse_model(r"model\.safetensors")

    def test_overflowing_shape(self):
        header, body = self.header()
        name = next(n for n in header if n != "__metadata__")
        header[name]["shape"] = [1 << 62, 1 << 62]
        self.write(header, body)
        self.refuse_model(r"model\.safetensors")

    def test_wrong_shape(self):
        config = json.loads((self.directory / "model/config.json").read_text())
        config["intermediate_size"] = 96
        (self.directory / "model/config.json").write_text(json.dumps(config))
        result = self.run_temper("train", self.write_recipe(), "model.init=pretrained")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, r"mlp\.gate_proj\.weight.*64.*96|mlp\.gate_proj\.weight.*96.*64")

    def test_missing_tensor(self):
        header, body = self.header()
        header["model.layers.0.extra.weight"] = header.pop("model.norm.weight")
        self.write(header, body)
        result = self.run_temper("train", self.write_recipe(), "model.init=pretrained")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, r"model\.norm\.weight")
        self.assertRegex(result.stderr, r"model\.layers\.0\.extra\.weight")

    def test_nan_in_weights(self):
        header, body = self.header()
        name = "model.norm.weight"
        start = header[name]["data_offsets"][0]
        body = body[:start] + struct.pack("<f", float("nan")) + body[start + 4 :]
        self.write(header, body)
        self.refuse_model(r"model\.norm\.weight")

    def test_pickle_is_refused(self):
        self.file.unlink()
        (self.directory / "model/pytorch_model.bin").write_bytes(b"PK")
        self.refuse_model(r"pytorch_model\.bin.*safetensors|safetensors.*pytorch_model\.bin|pickle")

    def test_missing_shard_of_the_index(self):
        header, _ = self.header()
        weights = {n: "model-00001-of-00002.safetensors" for n in header if n != "__metadata__"}
        (self.directory / "model/model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
        self.file.unlink()
        self.refuse_model(r"model-00001-of-00002\.safetensors")

    def test_tokenizer_larger_than_the_embedding(self):
        (self.directory / "model/config.json").write_text(json.dumps({**TINY, "vocab_size": 1000}))
        self.refuse("model.init=random", says=r"4096.*1000|vocab_size")

    def test_unknown_architecture(self):
        (self.directory / "model/config.json").write_text(json.dumps({**TINY, "architectures": ["NoSuchModel"], "model_type": "nosuch"}))
        self.refuse("model.init=random", says=r"NoSuchModel.*LlamaForCausalLM|nosuch")

    def test_config_without_a_key(self):
        config = dict(TINY)
        del config["hidden_size"]
        (self.directory / "model/config.json").write_text(json.dumps(config))
        self.refuse("model.init=random", says=r"config\.json.*hidden_size")

    def test_no_tokenizer(self):
        (self.directory / "model/tokenizer.json").unlink()
        self.refuse(says=r"tokenizer\.json")

    def test_broken_tokenizer(self):
        (self.directory / "model/tokenizer.json").write_text('{"version": "1.0", ')
        self.refuse(says=r"tokenizer\.json")


class BadData(Refusing):
    def refuse_rows(self, text, says, *overrides, name="train.jsonl", mode="w"):
        if isinstance(text, bytes):
            (self.directory / name).write_bytes(text)
        else:
            (self.directory / name).write_text(text)
        return self.refuse(f"data.train.0.path={name}", *overrides, says=says)

    def good(self, rows=3):
        return "".join(json.dumps({"text": "int main() { return 0; }"}) + "\n" for _ in range(rows))

    def test_empty_file(self):
        self.refuse_rows("", r"train\.jsonl.*(empty|no rows)")

    def test_broken_line(self):
        self.refuse_rows(self.good() + '{"text": "unclosed\n', r"train\.jsonl:4")

    def test_not_an_object(self):
        self.refuse_rows(self.good() + "[1, 2]\n", r"train\.jsonl:4")

    def test_not_utf8(self):
        self.refuse_rows(self.good().encode() + b'{"text": "\xff\xfe"}\n', r"train\.jsonl:4.*UTF-8")

    def test_wrong_type(self):
        self.refuse_rows(self.good() + '{"text": 5}\n', r"train\.jsonl:4.*text")

    def test_missing_column(self):
        self.refuse_rows(self.good() + '{"txt": "x"}\n', r"train\.jsonl:4.*text")

    def test_unrecognised_columns(self):
        self.refuse_rows('{"a": 1, "b": 2}\n', r"train\.jsonl.*(a, b|columns)")

    def test_fully_masked_row(self):
        row = json.dumps({"prompt": "int x = 1; " * 100, "completion": " y"})
        good = json.dumps({"prompt": "int x", "completion": " = 1;"})
        self.refuse_rows(good + "\n" + row + "\n", r"train\.jsonl:2.*|data\.on_bad_row", "data.packing=none")

    def test_bad_rows_can_be_skipped(self):
        (self.directory / "train.jsonl").write_text(self.good(20) + '{"text": 5}\n')
        result = self.run_temper("train", self.write_recipe(), "data.on_bad_row=skip", "train.steps=2")
        self.assert_done(result)
        self.assertRegex(result.stdout, r"1 bad row")

    def test_a_large_file_is_refused_before_it_is_read(self):
        # 8 GiB: after 10,000 rows only a hole, which costs no disk but seconds to read.
        bad = self.good(9999) + '{"text": 5}\n'
        (self.directory / "large.jsonl").write_text(bad)
        os.truncate(self.directory / "large.jsonl", 8 << 30)
        for ranks in (1, 2):
            self.refuse("data.train.0.path=large.jsonl", says=r"large\.jsonl:10000.*text", ranks=ranks)
        self.assertEqual(list((self.directory / "cache").glob("files/*")), [])
        # Rows for evaluation are looked at before the training file is read.
        (self.directory / "large.jsonl").write_text(self.good(10000))
        os.truncate(self.directory / "large.jsonl", 8 << 30)
        (self.directory / "eval.jsonl").write_text(bad)
        self.refuse("data.train.0.path=large.jsonl", says=r"eval\.jsonl:10000.*text")

    def test_unknown_suffix(self):
        self.refuse_rows("x", r"train\.xyz.*jsonl", name="train.xyz")

    def test_ragged_csv(self):
        self.refuse_rows("text,b\nx,1\ny\n", r"train\.csv:3", name="train.csv")

    def test_broken_gzip(self):
        self.refuse_rows(b"\x1f\x8b\x08garbage", r"train\.jsonl\.gz", name="train.jsonl.gz")


    def test_gzip_cut_short(self):
        whole = gzip.compress(self.good(5000).encode())
        self.refuse_rows(whole[: len(whole) // 2], r"train\.jsonl\.gz: ends within gzip data.*truncated", name="train.jsonl.gz")

    def test_parquet_with_a_broken_footer(self):
        whole = (SOURCE / "tests/parity/golden/readers/snappy.parquet").read_bytes()
        broken = {"no footer": whole[:-8], "lying length": whole[:-8] + struct.pack("<I", 1 << 30) + b"PAR1",
                  "damaged footer": whole[:-40] + b"\xff" * 32 + whole[-8:], "only a magic": b"PAR1", "text": b"not a table"}
        for name, data in broken.items():
            with self.subTest(name):
                self.refuse_rows(data, r"train\.parquet: (not readable as Parquet|this build has no Parquet reader)", name="train.parquet")

    def test_mixed_formats(self):
        chat = json.dumps({"messages": [{"role": "user", "content": "a"}]})
        self.refuse_rows(self.good() + chat + "\n", r"train\.jsonl:4: has the columns messages \(messages\), but the file's first row is text")

    def test_skipped_rows_are_counted_and_listed(self):
        rows = [*[{"text": "int x = 1;"}] * 20, {"text": 5}, {"messages": []}, {"text": ""}]
        (self.directory / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"text": "\n')
        result = self.run_temper("train", self.write_recipe(), "data.on_bad_row=skip", "train.steps=2")
        self.assert_done(result)
        self.assertRegex(result.stdout, r"4 bad rows")
        for line in (21, 22, 23):
            self.assertIn(f"train.jsonl:{line}:", result.stdout)


class BadTemplate(Refusing):
    """Chat templates that refuse, fail or never end."""

    CHAT = [{"role": "user", "content": "int x"}, {"role": "assistant", "content": " = 1;"}]

    def refuse_template(self, template, says, messages=None):
        (self.directory / "model/chat_template.jinja").write_text(template)
        rows = [self.CHAT] + ([messages] if messages else [])
        (self.directory / "chat.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
        return self.refuse("data.train.0.path=chat.jsonl", "data.eval.0.path=chat.jsonl", says=says)

    def test_syntax_error(self):
        self.refuse_template("{% for m in messages %}\n{{ m.role ", r"chat_template\.jinja:2:3: ")

    def test_raises(self):
        template = "{% for m in messages %}{{ m.content }}\n{% endfor %}{{ raise_exception('never today') }}"
        self.refuse_template(template, r"chat\.jsonl:1: .*chat_template\.jinja:2:16: never today")

    def test_refused_role(self):
        template = "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('unknown role ' ~ m.role) }}{% endif %}{{ m.content }}{% endfor %}"
        self.refuse_template(template, r"chat\.jsonl:2: .*chat_template\.jinja:1:71: unknown role wizard", [{"role": "wizard", "content": "x"}, *self.CHAT])

    def test_runs_too_long(self):
        template = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
        self.refuse_template(template, r"chat\.jsonl:1: .*chat_template\.jinja:1:\d+: the template runs too long")


class BadPlaces(Refusing):
    def test_output_is_a_file(self):
        (self.directory / "occupied").write_text("x")
        self.refuse("run.output=occupied", says=r"occupied")

    def test_never_over_an_existing_run(self):
        self.assert_done(self.run_temper("train", self.write_recipe(), "train.steps=2"))
        result = self.run_temper("train", self.write_recipe(), "run.resume=never")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, r"run\.resume.*overwrite")
        self.assert_done(self.run_temper("train", self.write_recipe(), "run.overwrite=true", "train.steps=2"))

    def test_nan_loss_stops_and_leaves_the_checkpoint(self):
        result = self.run_temper("train", self.write_recipe(), "optimizer.lr=1e38", "optimizer.max_grad_norm=0", "schedule.warmup=0",
                                 "checkpoint.every=1", "eval.every=0", ranks=2)
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertRegex(result.stderr, r"step \d+.*not finite")
        self.assertTrue(list((self.directory / "runs/test/failure").iterdir()))
        self.assertTrue(list((self.directory / "runs/test/checkpoints").glob("step-*/manifest.json")))

    @unittest.skipUnless(os.geteuid() == 0, "a small file system can only be mounted by root")
    def test_full_disk(self):
        small = self.directory / "small"
        small.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", small], capture_output=True).returncode != 0:
            self.skipTest("this root may not mount")
        self.addCleanup(subprocess.run, ["umount", "-l", small])
        # Too little space for what the run will need is refused before it starts.
        self.refuse("run.output=small", "checkpoint.keep=20", says=r"small.*free")
        # Space that vanishes while it runs ends it with exit code 1 and leaves the last checkpoint whole.
        recipe = self.write_recipe(train={"steps": 4000}, checkpoint={"every": 5, "keep": 1}, eval={"every": 0}, run={"output": "small"})
        process = self.start_temper("train", recipe)
        deadline = time.monotonic() + 30
        while not list(small.glob("test/checkpoints/step-*/manifest.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        with open(small / "filler", "wb") as filler:
            try:
                while True:
                    filler.write(b"\0" * 65536)
                    filler.flush()
            except OSError:
                pass
        self.assertEqual(process.wait(timeout=60), 1)
        _, errors = process.communicate()
        self.assertRegex(errors, r"(?i)no space|full")
        self.assertTrue(list(small.glob("test/checkpoints/step-*/manifest.json")))


if __name__ == "__main__":
    unittest.main(verbosity=2)
