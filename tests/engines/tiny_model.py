# SPDX-License-Identifier: Apache-2.0
"""Writes a model's folder, without weights: mock engines and clients need its tokenizer and its sizes.

usage: tiny_model.py DIRECTORY
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL = ["<unk>", "<s>", "</s>"]
# Dynamo's mock engine answers with tokens up to some 2,000; what has no text is no piece of a stream.
VOCABULARY = 4096

alphabet = pre_tokenizers.ByteLevel.alphabet()
vocabulary = {token: number for number, token in enumerate(SPECIAL + sorted(alphabet))}
tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_special_tokens(SPECIAL)
tokenizer.add_tokens([f" w{number}" for number in range(VOCABULARY - len(vocabulary))])

ENDS = {"bos_token_id": 1, "eos_token_id": 2}
FILES = {
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": 2048,
        "chat_template": "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}",
    },
    "generation_config.json": ENDS,
    "config.json": ENDS
    | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "torch_dtype": "float32",
    },
}

directory = Path(sys.argv[1])
directory.mkdir(parents=True, exist_ok=True)
tokenizer.save(str(directory / "tokenizer.json"))
for name, content in FILES.items():
    (directory / name).write_text(json.dumps(content, indent=1))
