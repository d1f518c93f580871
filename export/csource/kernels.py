"""Functions in C that the statements of operators call; only those that are called are written.

"@" stands for the model's prefix, and "@FAST" for what makes GCC put sums into vectors at -O2 already. Every loop runs
in a fixed order, so that the bits do not depend on how wide the processor's vectors are.
"""

from __future__ import annotations

BLOCK = 32
"""Outputs of a matrix that are computed at once: their sums stay in registers, in vectors where there are any."""
LANES = 16
"""Partial sums of one output that is computed alone."""

KERNELS: dict[str, str] = {
    "linear_block": f"""\
#if @LANES > 1
typedef float @vector __attribute__((vector_size(@LANES * 4)));
typedef float @unaligned __attribute__((vector_size(@LANES * 4), aligned(4), may_alias));
#else
typedef float @vector;
typedef float @unaligned;
#endif

/* {BLOCK} outputs at once: y[j] = b[j] + sum over i of x[i] * w[i][j], in the order of i. */
@FAST static void @linear_block(const float *x, int n, const float *w, const float *b, float *y)
{{
    @vector sum[{BLOCK} / @LANES];
    for (int j = 0; j < {BLOCK} / @LANES; j++) {{
        sum[j] = *(const @unaligned *)(b + j * @LANES);
    }}
    for (int i = 0; i < n; i++) {{
        const float xi = x[i];
        for (int j = 0; j < {BLOCK} / @LANES; j++) {{
            sum[j] += *(const @unaligned *)(w + j * @LANES) * xi;
        }}
        w += {BLOCK};
    }}
    for (int j = 0; j < {BLOCK} / @LANES; j++) {{
        *(@unaligned *)(y + j * @LANES) = sum[j];
    }}
}}""",
    "linear_rows": f"""\
/* count outputs one by one: y[k] = b[k] + sum over i of x[i] * w[k][i], in {LANES} partial sums. */
@FAST static void @linear_rows(const float *x, int n, const float *w, const float *b, float *y, int count)
{{
    for (int k = 0; k < count; k++) {{
        float sum[{LANES}];
        float rest = b[k];
        int i = 0;
        for (int j = 0; j < {LANES}; j++) {{
            sum[j] = 0.0f;
        }}
        for (; i + {LANES} <= n; i += {LANES}) {{
            for (int j = 0; j < {LANES}; j++) {{
                sum[j] += w[i + j] * x[i + j];
            }}
        }}
        for (; i < n; i++) {{
            rest += w[i] * x[i];
        }}
        for (int j = 0; j < 8; j++) {{
            sum[j] += sum[j + 8];
        }}
        for (int j = 0; j < 4; j++) {{
            sum[j] += sum[j + 4];
        }}
        y[k] = ((sum[0] + sum[2]) + (sum[1] + sum[3])) + rest;
        w += n;
    }}
}}""",
    "clip": """\
static float @clip(float a, float low, float high)
{
    a = a < low ? low : a;
    return a > high ? high : a;
}""",
    "max": """\
static float @max(float a, float b)
{
    return (a > b || a != a) ? a : b;
}""",
    "min": """\
static float @min(float a, float b)
{
    return (a < b || a != a) ? a : b;
}""",
    "softplus": """\
static float @softplus(float a)
{
    return a > 0.0f ? a + log1pf(expf(-a)) : log1pf(expf(a));
}""",
    "softmax": """\
static void @softmax(const float *x, int n, int stride, float *y)
{
    float largest = x[0];
    float sum = 0.0f;
    for (int i = 1; i < n; i++) {
        largest = (x[i * stride] > largest || x[i * stride] != x[i * stride]) ? x[i * stride] : largest;
    }
    for (int i = 0; i < n; i++) {
        y[i * stride] = expf(x[i * stride] - largest);
        sum += y[i * stride];
    }
    for (int i = 0; i < n; i++) {
        y[i * stride] = y[i * stride] / sum;
    }
}""",
    "log_softmax": """\
static void @log_softmax(const float *x, int n, int stride, float *y)
{
    float largest = x[0];
    float sum = 0.0f;
    for (int i = 1; i < n; i++) {
        largest = (x[i * stride] > largest || x[i * stride] != x[i * stride]) ? x[i * stride] : largest;
    }
    for (int i = 0; i < n; i++) {
        sum += expf(x[i * stride] - largest);
    }
    sum = logf(sum);
    for (int i = 0; i < n; i++) {
        y[i * stride] = (x[i * stride] - largest) - sum;
    }
}""",
    "layer_norm": """\
/* The mean, then the mean of the squared differences; w is the weight, b the bias. */
static void @layer_norm(const float *x, int n, float epsilon, const float *w, const float *b, float *y)
{
    float mean = 0.0f;
    float variance = 0.0f;
    for (int i = 0; i < n; i++) {
        mean += x[i];
    }
    mean = mean / (float)n;
    for (int i = 0; i < n; i++) {
        const float centred = x[i] - mean;
        variance += centred * centred;
    }
    variance = sqrtf(variance / (float)n + epsilon);
    for (int i = 0; i < n; i++) {
        y[i] = (x[i] - mean) / variance * w[i] + b[i];
    }
}""",
    **{
        f"reduce_{name}": f"""\
static float @reduce_{name}(const float *x, int n, int stride)
{{
    float result = {start};
    for (int i = {first}; i < n; i++) {{
        const float a = x[i * stride];
        result = {step};
    }}
    return {last};
}}"""
        for name, start, first, step, last in (
            ("sum", "0.0f", 0, "result + a", "result"),
            ("mean", "0.0f", 0, "result + a", "result / (float)n"),
            ("l2", "0.0f", 0, "result + a * a", "sqrtf(result)"),
            ("l1", "0.0f", 0, "result + fabsf(a)", "result"),
            ("max", "x[0]", 1, "(a > result || a != a) ? a : result", "result"),
            ("min", "x[0]", 1, "(a < result || a != a) ? a : result", "result"),
        )
    },
}
"""By name. Comparisons are written so that NaN is passed on."""
