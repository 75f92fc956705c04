"""Generative retrieval the way it is done today, for comparison: the same task by Hugging Face, PyTorch, ONNX Runtime.

    python peer.py [--threads N] [--batches 1,8,32] [--seconds S] [--only NAME,...]

Task: a history of 20 items as 80 tokens; of 12,101 items, each 4 tokens of 256, the best ten by beam search of width 20
over valid token paths. Network: TIGER's public sizes, T5 with 4 + 4 layers, d 128, 6 heads of 64, feed-forward 1024;
weights are random, because time does not depend on them. Programs:

    hf        transformers' generate() with prefix_allowed_tokens_fn
    torch     beam search by hand: the history is encoded once, its keys and values are shared by all beams, the constraint
              is a table look-up, one top-k a step
    compile   the same through torch.compile
    ort       the same exported as one graph of four steps, ONNX Runtime, fp32
    ort-int8  with weights of matrix products in 8 bits (dynamic quantisation)
    sasrec    for scale: SASRec (2 layers, d 128, 50 events), product with all items, the best 20

Prints a Markdown table of medians. Not needed to build or test anything.
"""

import argparse
import os
import tempfile
import time
import warnings

parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--batches", default="1,8,32")
parser.add_argument("--seconds", type=float, default=5.0, help="for each figure, beyond three runs to warm up")
parser.add_argument("--only", default="hf,torch,compile,ort,ort-int8,sasrec")
options = parser.parse_args()
os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

warnings.filterwarnings("ignore")
torch.set_num_threads(options.threads)
torch.manual_seed(0)
torch.set_grad_enabled(False)

ITEMS, CODEBOOKS, ENTRIES, HISTORY = 12_101, 4, 256, 20
BEAM, WANTED = 20, 10
WIDTH, HEADS, HEAD, INNER, LAYERS = 128, 6, 64, 1024, 4
# Tokens 0 (padding and begin) and 1 (end), then codebook r's entry j as 2 + r * 256 + j.
FIRST, VOCABULARY = 2, 2 + CODEBOOKS * ENTRIES
BLOCKED = -1e9


def codes():
    """Distinct codes of all items, [ITEMS, CODEBOOKS], sorted; the last token tells items alike apart, as TIGER does."""
    random = np.random.default_rng(1)
    seen = set()
    while len(seen) < ITEMS:
        seen.add(tuple(int(entry) for entry in random.integers(0, ENTRIES, CODEBOOKS)))
    return np.array(sorted(seen))


def children(table):
    """For each node of the tree of valid paths and each entry the node that follows, -1 for none: [nodes, ENTRIES]."""
    following, nodes = [np.full(ENTRIES, -1, np.int64)], {(): 0}
    for code in table:
        for depth in range(CODEBOOKS):
            path = tuple(code[: depth + 1])
            if path not in nodes:
                nodes[path] = len(following)
                following.append(np.full(ENTRIES, -1, np.int64))
                following[nodes[path[:-1]]][path[-1]] = nodes[path]
    return np.stack(following)


class RootMeanSquare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Block(nn.Module):
    """Attention or two of them, and a feed-forward part; biases by distance are one table a stack, as in T5."""

    def __init__(self, decoder):
        super().__init__()
        inner = HEADS * HEAD
        self.norm, self.qkv, self.out = RootMeanSquare(), nn.Linear(WIDTH, 3 * inner, False), nn.Linear(inner, WIDTH, False)
        if decoder:
            self.cross_norm, self.query = RootMeanSquare(), nn.Linear(WIDTH, inner, False)
            self.memory, self.cross_out = nn.Linear(WIDTH, 2 * inner, False), nn.Linear(inner, WIDTH, False)
        self.ff_norm, self.up, self.down = RootMeanSquare(), nn.Linear(WIDTH, INNER, False), nn.Linear(INNER, WIDTH, False)

    def feed(self, x):
        return x + self.down(F.relu(self.up(self.ff_norm(x))))


def heads(x):
    """[batch, positions, HEADS * HEAD] to [batch, HEADS, positions, HEAD]."""
    return x.view(x.shape[0], x.shape[1], HEADS, HEAD).transpose(1, 2)


def whole(x):
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], HEADS * HEAD)


def attend(q, k, v, bias=None):
    scores = q @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    return torch.softmax(scores, -1) @ v


class Search(nn.Module):
    """History tokens [batch, 80] to the ten best paths: their last nodes and scores."""

    def __init__(self, following):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.encoder = nn.ModuleList(Block(False) for _ in range(LAYERS))
        self.decoder = nn.ModuleList(Block(True) for _ in range(LAYERS))
        self.encoder_norm, self.decoder_norm = RootMeanSquare(), RootMeanSquare()
        length = HISTORY * CODEBOOKS
        self.encoder_bias = nn.Parameter(torch.randn(1, HEADS, length, length))
        self.decoder_bias = nn.Parameter(torch.randn(HEADS, CODEBOOKS))
        self.register_buffer("following", torch.from_numpy(following))
        self.register_buffer("blocked", torch.where(self.following < 0, BLOCKED, 0.0))
        for linear in (module for module in self.modules() if isinstance(module, nn.Linear)):
            nn.init.normal_(linear.weight, std=WIDTH**-0.5)

    def forward(self, tokens):
        batch = tokens.shape[0]
        x = self.embedding(tokens)
        for block in self.encoder:
            q, k, v = (heads(part) for part in block.qkv(block.norm(x)).chunk(3, -1))
            x = block.feed(x + block.out(whole(attend(q, k, v, self.encoder_bias))))
        states = self.encoder_norm(x)
        memory = [tuple(heads(part) for part in block.memory(states).chunk(2, -1)) for block in self.decoder]

        node = torch.zeros(batch, 1, dtype=torch.long)
        score = torch.zeros(batch, 1)
        token = torch.zeros(batch, 1, dtype=torch.long)
        past = [None] * LAYERS
        for step in range(CODEBOOKS):
            beams = node.shape[1]
            x = self.embedding(token)
            for at, block in enumerate(self.decoder):
                # Positions of one path: [batch * beams, HEADS, steps, HEAD].
                q, k, v = (
                    part.reshape(batch * beams, HEADS, 1, HEAD) for part in block.qkv(block.norm(x)).chunk(3, -1)
                )
                if past[at] is not None:
                    k, v = torch.cat([past[at][0], k], 2), torch.cat([past[at][1], v], 2)
                past[at] = (k, v)
                bias = self.decoder_bias[:, : step + 1].flip(1).view(1, HEADS, 1, step + 1)
                x = x + block.out(attend(q, k, v, bias).reshape(batch, beams, HEADS * HEAD))
                # All beams of a request read one memory: [batch, HEADS, beams, HEAD].
                x = block.feed(x + block.cross_out(whole(attend(heads(block.query(block.cross_norm(x))), *memory[at]))))
            rows = self.embedding.weight[FIRST + step * ENTRIES : FIRST + (step + 1) * ENTRIES]
            logits = (self.decoder_norm(x) * WIDTH**-0.5) @ rows.T + self.blocked[node]
            scores = (score.unsqueeze(-1) + torch.log_softmax(logits, -1)).flatten(1)
            score, best = scores.topk(BEAM if step + 1 < CODEBOOKS else WANTED, -1)
            parent, entry = best // ENTRIES, best % ENTRIES
            node = self.following[node.gather(1, parent), entry]
            # A path that no valid token follows leads nowhere; it stays at the root and far behind.
            node = node.clamp(min=0)
            token = FIRST + step * ENTRIES + entry
            rows = (parent + torch.arange(batch).unsqueeze(1) * beams).flatten()
            past = [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in past]
        return node, score


class SasRec(nn.Module):
    """2 layers, d 128, 50 events, product with all items, the best 20."""

    def __init__(self):
        super().__init__()
        self.items, self.places = nn.Embedding(ITEMS, WIDTH), nn.Embedding(50, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, WIDTH, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("future", torch.full((50, 50), float("-inf")).triu(1))

    def forward(self, events):
        x = self.items(events) + self.places.weight
        return (self.layers(x, self.future)[:, -1] @ self.items.weight.T).topk(20)


def hugging_face(table):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=HEAD, d_ff=INNER, num_layers=LAYERS, num_decoder_layers=LAYERS,
        num_heads=HEADS, dropout_rate=0.0, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )
    network = T5ForConditionalGeneration(config).eval()
    allowed = {}
    for code in table:
        tokens = [FIRST + r * ENTRIES + int(entry) for r, entry in enumerate(code)]
        for depth in range(CODEBOOKS):
            allowed.setdefault(tuple(tokens[:depth]), set()).add(tokens[depth])
    allowed = {path: sorted(tokens) for path, tokens in allowed.items()}

    def follow(_, path):
        return allowed.get(tuple(path.tolist()[1:]), [1])

    def run(tokens):
        return network.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), num_beams=BEAM, num_return_sequences=WANTED,
            max_new_tokens=CODEBOOKS, min_new_tokens=CODEBOOKS, do_sample=False, prefix_allowed_tokens_fn=follow,
        )

    return run


def exported(search, batch, folder, eight_bits):
    import onnxruntime

    path = os.path.join(folder, f"search-{batch}.onnx")
    if not os.path.exists(path):
        example = torch.randint(FIRST, VOCABULARY, (batch, HISTORY * CODEBOOKS))
        torch.onnx.export(search, (example,), path, input_names=["tokens"], dynamo=True, external_data=False, verbose=False)
    if eight_bits:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole_path, path = path, path.replace(".onnx", "-int8.onnx")
        quantize_dynamic(whole_path, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads, session.inter_op_num_threads = options.threads, 1
    session.log_severity_level = 3
    runner = onnxruntime.InferenceSession(path, session, providers=["CPUExecutionProvider"])
    name = runner.get_inputs()[0].name
    return lambda tokens: runner.run(None, {name: tokens.numpy()})


def median(run, *inputs):
    """Milliseconds: median and least."""
    for _ in range(3):
        run(*inputs)
    took, began = [], time.perf_counter()
    while len(took) < 5 or time.perf_counter() - began < options.seconds:
        start = time.perf_counter()
        run(*inputs)
        took.append((time.perf_counter() - start) * 1e3)
    took.sort()
    return took[len(took) // 2], took[0]


def main():
    only = options.only.split(",")
    table = codes()
    search = Search(children(table)).eval()
    print(f"torch {torch.__version__}, {options.threads} thread(s), beam {BEAM}, best {WANTED} of {ITEMS}\n")
    print("| program | batch | p50 ms | least ms | users/s at p50 |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in only:
            for batch in (int(part) for part in options.batches.split(",")):
                tokens = torch.randint(FIRST, VOCABULARY, (batch, HISTORY * CODEBOOKS))
                try:
                    if name == "hf":
                        run = hugging_face(table)
                    elif name == "torch":
                        run = search
                    elif name == "compile":
                        run = torch.compile(search, dynamic=False)
                    elif name in ("ort", "ort-int8"):
                        run = exported(search, batch, folder, name == "ort-int8")
                        if name == "ort":
                            ours, theirs = search(tokens)[1].numpy(), run(tokens)[1]
                            assert np.allclose(ours, theirs, atol=1e-3), "the exported graph answers otherwise"
                    elif name == "sasrec":
                        run, tokens = SasRec().eval(), torch.randint(0, ITEMS, (batch, 50))
                    else:
                        raise SystemExit(f"--only {name}: expected hf, torch, compile, ort, ort-int8, sasrec")
                    middle, least = median(run, tokens)
                except (ImportError, RuntimeError, AssertionError) as error:
                    print(f"| {name} | {batch} | not measured: {str(error).splitlines()[0][:90]} | | |", flush=True)
                    continue
                print(f"| {name} | {batch} | {middle:.1f} | {least:.1f} | {batch * 1e3 / middle:.0f} |", flush=True)


if __name__ == "__main__":
    main()
