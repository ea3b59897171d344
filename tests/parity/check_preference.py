"""Preference objectives of the whole program against TRL, live: what `temper eval` says of pairs and rated completions equals TRL's
trainers' evaluation for every loss and option, and training follows TRL's own training loop.

    python tests/parity/check_preference.py PROGRAM [--only NAME[,NAME...]]

Needs the reference packages (launch/setup.sh --peers), no network and no data: models are random and tiny.
"""

import argparse
import json
import random
import tempfile
import unittest
from pathlib import Path

import peft
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

import check_adapters
from check_adapters import WORDS, make_base, temper, toml_table

ROWS = 8
MICRO = 4
STEPS = 20
EVERY_DPO_LOSS = ("sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired apo_zero apo_down discopop sft "
                  "sigmoid_norm").split()
SMOOTHED = {"exo_pair": 0.1, "robust": 0.2, "aot": 0.1, "aot_unpaired": 0.1}
DPO = [{"loss_type": [name]} | ({"label_smoothing": SMOOTHED[name]} if name in SMOOTHED else {}) for name in EVERY_DPO_LOSS] + [
    {"loss_type": ["sigmoid"], "f_divergence_type": "forward_kl"},
    {"loss_type": ["ipo"], "f_divergence_type": "js_divergence", "beta": 0.4},
    {"loss_type": ["sigmoid"], "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7},
    {"loss_type": ["sigmoid"], "ld_alpha": 0.4},
    {"loss_type": ["sigmoid"], "use_weighting": True},
    {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    {"loss_type": ["discopop"], "discopop_tau": 0.1, "beta": 0.3},
]
KTO = [{}, {"beta": 0.3, "desirable_weight": 1.4, "undesirable_weight": 0.7}, {"loss_type": "apo_zero_unpaired"}]
CPO = [{}, {"loss_type": "hinge"}, {"loss_type": "ipo"}, {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 1.0, "beta": 2.0},
       {"label_smoothing": 0.2}, {"loss_type": "simpo", "alpha": 0.2}]
ORPO = [{}, {"beta": 0.5}]
REWARD = [{}, {"center_rewards_coefficient": 0.01}]
KINDS = {
    "dpo": (DPOTrainer, DPOConfig, DPO),
    "kto": (KTOTrainer, KTOConfig, KTO),
    "cpo": (CPOTrainer, CPOConfig, CPO),
    "orpo": (ORPOTrainer, ORPOConfig, ORPO),
    "reward": (RewardTrainer, RewardConfig, REWARD),
}
TRAINED = [("dpo", {}), ("dpo", {"loss_type": ["ipo", "sft"], "loss_weights": [1.0, 0.5]}), ("dpo", {"precompute_ref_log_probs": True}),
           ("dpo", {"sync_ref_model": True, "ref_model_sync_steps": 3, "ref_model_mixup_alpha": 0.5}), ("kto", {}), ("orpo", {}), ("cpo", {}),
           ("reward", {})]
# Of a padded block of logits in these trainers, so they depend on the padding: not done here.
PADDED = {"cpo": {"logits/chosen", "logits/rejected"}, "orpo": {"logits/chosen", "logits/rejected"}}
OF_TRAINER = {"runtime", "samples_per_second", "steps_per_second", "num_tokens", "epoch", "model_preparation_time"}


def words(rng, least=1, most=8):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(least, most)))


def make_rows(directory):
    rng = random.Random(3)
    with open(directory / "pairs.jsonl", "w", encoding="utf-8") as pairs, open(directory / "rated.jsonl", "w", encoding="utf-8") as rated:
        for i in range(ROWS):
            row = {"prompt": words(rng), "chosen": " " + words(rng), "rejected": " " + words(rng)}
            pairs.write(json.dumps(row) + "\n")
            rated.write(json.dumps({"prompt": row["prompt"], "completion": row["chosen"], "label": i % 3 != 1}) + "\n")


def tokenizer_of(base):
    """Its end of text pads too, where it has no token for that: TRL's rule."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def scoring_model(base, directory):
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = tokenizer_of(base).pad_token_id
    with torch.no_grad():
        model.score.weight.normal_(0, 0.3)
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(base).save_pretrained(directory)
    return directory


class Preference(unittest.TestCase):
    longMessage = True

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="temper-preference-")
        cls.directory = Path(cls.folder.name)
        torch.set_num_threads(1)
        torch.manual_seed(1)
        cls.base = make_base("llama", cls.directory / "model")
        cls.other = make_base("llama", cls.directory / "other")
        cls.scoring = scoring_model(cls.base, cls.directory / "scoring")
        make_rows(cls.directory)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def rows(self, kind):
        return self.directory / ("rated.jsonl" if kind == "kto" else "pairs.jsonl")

    def trainer(self, kind, options, model=None, reference=True, micro=MICRO, **arguments):
        """TRL's, made from the same directories; the reference is another model unless said."""
        cls, config, _ = KINDS[kind]
        args = config(output_dir=str(self.directory / "trl"), per_device_train_batch_size=micro, per_device_eval_batch_size=ROWS, bf16=False,
                      use_cpu=True, report_to=[], gradient_checkpointing=False, save_strategy="no", logging_steps=1, max_length=64,
                      disable_tqdm=True, train_sampling_strategy="sequential", **options, **arguments)
        if model is None:
            model = (AutoModelForSequenceClassification.from_pretrained(self.scoring, num_labels=1, dtype=torch.float32) if kind == "reward"
                     else AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32))
        more = {}
        if kind in ("dpo", "kto") and reference:
            more["ref_model"] = AutoModelForCausalLM.from_pretrained(self.other, dtype=torch.float32)
        data = load_dataset("json", data_files=str(self.rows(kind)), split="train", cache_dir=str(self.directory / "datasets"))
        return cls(model=model, args=args, train_dataset=data, eval_dataset=data, processing_class=tokenizer_of(self.base),
                   **more)

    def write_recipe(self, name, kind, options, reference=True, micro=MICRO, **tables):
        objective = {"kind": kind, **options}
        if kind in ("dpo", "kto") and reference:
            objective["ref_model"] = str(self.other)
        tables = {
            "run": {"name": name, "overwrite": True, "resume": "never"},
            "model": {"path": str(self.scoring if kind == "reward" else self.base), "dtype": "fp32"},
            "data": {"max_length": 64, "shuffle": False},
            "objective": objective,
            "optimizer": {"lr": 1e-3},
            "schedule": {"kind": "constant"},
            "batch": {"global": MICRO, "micro": micro},
            "train": {"steps": STEPS, "precision": "fp32"},
            "log": {"every": 1, "samples": False, "tensorboard": False},
            **tables,
        }
        sources = "".join(f'[[data.{which}]]\npath = "{self.rows(kind)}"\n' for which in ("train", "eval"))
        text = "\n".join(toml_table(key, values) for key, values in tables.items()) + sources
        (self.directory / "recipe.toml").write_text(text, encoding="utf-8")

    def metrics(self, run):
        with open(self.directory / "runs" / run / "metrics.jsonl", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def assert_close(self, ours, theirs, tolerance, what):
        self.assertLessEqual(abs(ours - theirs), tolerance * max(1.0, abs(theirs)), f"{what}: {ours} against TRL's {theirs}")

    def assert_metrics(self, ours, theirs, kind, tolerance, prefix=""):
        for name, value in theirs.items():
            plain = name.removeprefix(prefix)
            if plain in OF_TRAINER | PADDED.get(kind, set()) or not isinstance(value, float):
                continue
            self.assertIn(name, ours)
            self.assert_close(ours[name], value, tolerance, name)

    def check_evaluation(self, kind):
        for options in KINDS[kind][2]:
            with self.subTest("evaluation", kind=kind, **options):
                theirs = self.trainer(kind, options, micro=ROWS).evaluate()  # KTO's KL pairs are those of a training batch
                self.write_recipe("eval", kind, options, micro=ROWS, batch={"global": ROWS, "micro": ROWS})
                output = temper("eval", "recipe.toml", cwd=self.directory)
                self.assert_metrics(json.loads(output.splitlines()[-1]), theirs, kind, 1e-5, "eval_")

    def check_training(self, kind, options):
        with self.subTest("training", kind=kind, **options):
            trainer = self.trainer(kind, options, max_steps=STEPS, learning_rate=1e-3, lr_scheduler_type="constant", max_grad_norm=1.0)
            trainer.train()
            self.write_recipe("train", kind, options)
            temper("train", "recipe.toml", cwd=self.directory)
            ours = [line for line in self.metrics("train") if "loss" in line]
            theirs = [line for line in trainer.state.log_history if "loss" in line]
            self.assertEqual((len(ours), len(theirs)), (STEPS, STEPS))
            for step, (mine, other) in enumerate(zip(ours, theirs)):
                tolerance = 1e-5 if step == 0 else 1e-4
                self.assert_close(mine["loss"], other["loss"], tolerance, f"loss of step {step + 1}")
                # Their sums of log-probabilities are of hundreds of nats.
                self.assert_metrics(mine, {k: v for k, v in other.items() if k not in ("loss", "grad_norm", "learning_rate")}, kind, 10 * tolerance)

    def check_adapters(self):
        """A new adapter's reference is the base; one that was loaded is its own."""
        with self.subTest("adapters"):
            config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
            model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32), config)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.1 * torch.randn_like(parameter))
            adapter = self.directory / "adapter"
            model.save_pretrained(adapter)
            loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32), str(adapter),
                                                    is_trainable=True)
            trainer = self.trainer("dpo", {}, model=loaded, reference=False, max_steps=6, learning_rate=1e-3, lr_scheduler_type="constant",
                                   max_grad_norm=1.0)
            trainer.train()
            self.write_recipe("adapter", "dpo", {}, reference=False, model={"path": str(self.base), "adapter": str(adapter), "dtype": "fp32"},
                              train={"steps": 6, "precision": "fp32"})
            temper("train", "recipe.toml", cwd=self.directory)
            ours = [line["loss"] for line in self.metrics("adapter") if "loss" in line]
            theirs = [line["loss"] for line in trainer.state.log_history if "loss" in line]
            for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
                self.assert_close(mine, other, 1e-4, f"loss of step {step + 1}")

    def losses(self, run):
        return [line["loss"] for line in self.metrics(run) if "loss" in line]

    def check_ranks(self):
        """Two ranks with one micro-batch each are one rank with two; KTO's KL alone is of both ranks together."""
        for kind, options in (("dpo", {}), ("dpo", {"precompute_ref_log_probs": True}), ("kto", {"loss_type": "apo_zero_unpaired"}),
                              ("orpo", {}), ("cpo", {}), ("reward", {})):
            with self.subTest("ranks", kind=kind, **options):
                for name, launcher in (("one", []), ("two", ["mpirun", "--oversubscribe", "-n", "2"])):
                    self.write_recipe(name, kind, options, batch={"global": ROWS, "micro": ROWS // 2}, train={"steps": 4, "precision": "fp32"},
                                      data={"max_length": 64, "shuffle": False, "cache": f"cache-{name}"})
                    temper("train", "recipe.toml", cwd=self.directory, launcher=launcher)
                for step, (one, two) in enumerate(zip(self.losses("one"), self.losses("two"), strict=True)):
                    self.assert_close(two, one, 1e-5, f"loss of step {step + 1} on two ranks")

    def check_resume(self):
        """A run that stopped half-way goes on to the same bits, the reference that followed the policy and stored numbers too."""
        for options in ({"sync_ref_model": True, "ref_model_sync_steps": 2}, {"precompute_ref_log_probs": True}):
            with self.subTest("resume", **options):
                for name, stops in (("whole", [6]), ("parts", [3, 6])):
                    for steps in stops:
                        run = {"name": f"{name}-{'-'.join(options)}"}
                        self.write_recipe("", "dpo", options, reference=False, run=run, train={"steps": steps, "precision": "fp32"})
                        temper("train", "recipe.toml", cwd=self.directory)
                whole, parts = (self.losses(f"{name}-{'-'.join(options)}") for name in ("whole", "parts"))
                self.assertEqual(whole, parts)

    def check_scoring_export(self):
        """A language model gets a head; what is exported scores alike in transformers."""
        for adapters in (False, True):
            with self.subTest("export of a reward model", adapters=adapters):
                tables = {"peft": {"method": "lora", "r": 4}} if adapters else {}
                self.write_recipe("scores", "reward", {}, model={"path": str(self.base), "dtype": "fp32"}, train={"steps": 3, "precision": "fp32"},
                                  batch={"global": ROWS, "micro": ROWS}, **tables)
                temper("train", "recipe.toml", cwd=self.directory)
                exported = self.directory / "runs/scores/export"
                if adapters:
                    base = AutoModelForSequenceClassification.from_pretrained(self.base, num_labels=1, dtype=torch.float32)
                    base.config.pad_token_id = tokenizer_of(self.base).pad_token_id
                    model = peft.PeftModel.from_pretrained(base, str(exported))
                    self.assertEqual(model.peft_config["default"].task_type, "SEQ_CLS")
                    model = model.merge_and_unload()
                else:
                    model = AutoModelForSequenceClassification.from_pretrained(exported, dtype=torch.float32)
                    self.assertEqual(model.config.num_labels, 1)
                theirs = self.trainer("reward", {}, model=model).evaluate()
                last = [line for line in self.metrics("scores") if "eval_loss" in line][-1]
                self.assert_metrics(last, theirs, "reward", 1e-5, "eval_")


def load_tests(loader, tests, pattern):
    suite = unittest.TestSuite()

    def add(name, check):
        if not ONLY or name in ONLY:
            setattr(Preference, f"test_{name}", check)
            suite.addTest(Preference(f"test_{name}"))

    for kind in KINDS:
        add(f"{kind}_evaluation", lambda self, kind=kind: self.check_evaluation(kind))
    for number, (kind, options) in enumerate(TRAINED):
        add(f"{kind}_training_{number}", lambda self, kind=kind, options=options: self.check_training(kind, options))
    add("adapters", Preference.check_adapters)
    add("ranks", Preference.check_ranks)
    add("resume", Preference.check_resume)
    add("scoring_export", Preference.check_scoring_export)
    return suite


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    check_adapters.PROGRAM = str(arguments.program.resolve())
    ONLY = set(filter(None, arguments.only.split(",")))
    unittest.main(argv=["check_preference.py"], verbosity=2)
