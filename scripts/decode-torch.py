#!/usr/bin/env python3
"""Tokens per second of a dense decoder of Llama-2-7B's shape in PyTorch, beside `experiments/decode-7b.toml`.

Random weights in float16, plain F.linear (q, k, v and gate, up packed into one product each, unless --apart), a static
cache of keys and values, and one CUDA graph for a token, which holds the arg-max and the next position too. A prompt of as
many tokens as the experiment's is read at once, by a graph of its own and PyTorch's fused attention; then tokens are
generated one at a time; each is read by the host, as ours are. Prints two lines; needs a GPU with 30 GB and PyTorch.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

WIDTH, HIDDEN, HEADS, HEAD, LAYERS, VOCABULARY = 4096, 11008, 32, 128, 32, 32000


class Layer:
    def __init__(self, capacity, batch, apart):
        def weight(rows, cols):
            return torch.randn(rows, cols, device="cuda", dtype=torch.float16) * 0.02

        self.qkv = [weight(WIDTH, WIDTH) for _ in range(3)] if apart else [weight(3 * WIDTH, WIDTH)]
        self.output = weight(WIDTH, WIDTH)
        self.up = [weight(HIDDEN, WIDTH) for _ in range(2)] if apart else [weight(2 * HIDDEN, WIDTH)]
        self.down = weight(WIDTH, HIDDEN)
        self.norms = [torch.ones(WIDTH, device="cuda", dtype=torch.float16) for _ in range(2)]
        shape = (batch, HEADS, capacity, HEAD)
        self.keys, self.values = (torch.randn(shape, device="cuda", dtype=torch.float16) for _ in range(2))


def products(x, weights, count):
    if len(weights) == 1:
        return F.linear(x, weights[0]).chunk(count, dim=-1)
    return [F.linear(x, weight) for weight in weights]


def turned(x, cos, sin):
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--apart", action="store_true", help="a product for each linear")
    given = parser.parse_args()
    torch.manual_seed(0)
    capacity, batch = given.prompt + given.generate, given.batch
    layers = [Layer(capacity, batch, given.apart) for _ in range(LAYERS)]
    table = torch.randn(VOCABULARY, WIDTH, device="cuda", dtype=torch.float16)
    head = torch.randn(VOCABULARY, WIDTH, device="cuda", dtype=torch.float16) * 0.02
    final = torch.ones(WIDTH, device="cuda", dtype=torch.float16)
    places = torch.arange(capacity, device="cuda")
    angles = places[:, None].float() * 10000.0 ** (-torch.arange(0, HEAD, 2, device="cuda") / HEAD)
    cosines, sines = angles.cos().half(), angles.sin().half()
    token = torch.zeros(batch, 1, device="cuda", dtype=torch.long)
    position = torch.zeros(1, device="cuda", dtype=torch.long)

    def step():
        x = table[token]
        cos, sin = cosines[position], sines[position]
        seen = (places <= position)[None, None, None]
        for layer in layers:
            q, k, v = products(F.rms_norm(x, (WIDTH,), layer.norms[0], 1e-5), layer.qkv, 3)
            q, k, v = (part.view(batch, 1, HEADS, HEAD).transpose(1, 2) for part in (q, k, v))
            layer.keys.index_copy_(2, position, turned(k, cos, sin))
            layer.values.index_copy_(2, position, v)
            attended = F.scaled_dot_product_attention(turned(q, cos, sin), layer.keys, layer.values, attn_mask=seen)
            x = x + F.linear(attended.transpose(1, 2).reshape(batch, 1, WIDTH), layer.output)
            gate, up = products(F.rms_norm(x, (WIDTH,), layer.norms[1], 1e-5), layer.up, 2)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        logits = F.linear(F.rms_norm(x, (WIDTH,), final, 1e-5), head)
        token.copy_(logits.argmax(dim=-1))
        position.add_(1)

    words = torch.randint(VOCABULARY, (batch, given.prompt), device="cuda")

    def read():
        x = table[words]
        cos, sin = cosines[: given.prompt], sines[: given.prompt]
        for layer in layers:
            q, k, v = products(F.rms_norm(x, (WIDTH,), layer.norms[0], 1e-5), layer.qkv, 3)
            q, k, v = (part.view(batch, -1, HEADS, HEAD).transpose(1, 2) for part in (q, k, v))
            k = turned(k, cos, sin)
            layer.keys[:, :, : given.prompt] = k
            layer.values[:, :, : given.prompt] = v
            attended = F.scaled_dot_product_attention(turned(q, cos, sin), k, v, is_causal=True)
            x = x + F.linear(attended.transpose(1, 2).reshape(batch, -1, WIDTH), layer.output)
            gate, up = products(F.rms_norm(x, (WIDTH,), layer.norms[1], 1e-5), layer.up, 2)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        token.copy_(F.linear(F.rms_norm(x[:, -1:], (WIDTH,), final, 1e-5), head).argmax(dim=-1))

    def recorded(work):
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            position.fill_(given.prompt)
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph

    with torch.no_grad():
        graph = recorded(read)
        reading = []
        for _ in range(10):
            torch.cuda.synchronize()
            start = time.perf_counter()
            graph.replay()
            token.tolist()
            reading.append(time.perf_counter() - start)
        reading = statistics.median(reading[3:])
        graph = recorded(step)
        seconds = []
        for _ in range(4):
            position.fill_(given.prompt)
            torch.cuda.synchronize()
            for _ in range(given.generate):
                start = time.perf_counter()
                graph.replay()
                token.tolist()
                seconds.append(time.perf_counter() - start)
    weights = 2 * (LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * HIDDEN) + WIDTH * VOCABULARY)
    median = statistics.median(seconds[given.generate :])
    card = torch.cuda.get_device_name()
    form = "apart" if given.apart else "packed"
    print(
        f"{card}, PyTorch {torch.__version__}, {form}, batch {batch}: {reading * 1e3:.2f} ms for a prompt of "
        f"{given.prompt} tokens, {batch * given.prompt / reading:.0f} tokens/s"
    )
    print(
        f"{card}, PyTorch {torch.__version__}, {form}, batch {batch}: {median * 1e3:.3f} ms a token, "
        f"{batch / median:.1f} tokens/s, weights at {weights / median / 1e12:.2f} TB/s"
    )


if __name__ == "__main__":
    main()
