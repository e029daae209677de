"""The lemmas hold, their wrong variants do not, and dynsim's numbers agree with closed forms."""

import inspect
import re
import subprocess
import sys
from contextlib import redirect_stdout
from fractions import Fraction
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import sympy
from hypothesis import assume, given
from hypothesis import strategies as st

import dynsim
import theory.__main__
from dynsim import AttentionDynamics, connectivity, masks, measures, norms, simulate
from dynsim.network.weights import Fixed, Identity, Jordan
from theory import lemmas, runner
from theory.__main__ import main
from theory.document import document
from theory.equilibria import jordan
from theory.equilibria.schur import all_inside, sign_polynomial
from theory.lemma import KINDS, Lemma, Proof, Statement
from theory.sums import N

#: Characters of LaTeX that still can be read when a formula is made as narrow as a line.
LONGEST = 600

ROOT = Path(__file__).parent.parent
LEMMAS = lemmas()
VARIANTS = [(name, words) for name, lemma in LEMMAS.items() for words in lemma.wrong]


def claimed(name, argument):
    """What a lemma claims: a keyword argument of its check, that is a constant or a formula."""
    return inspect.signature(LEMMAS[name].check).parameters[argument].default


#: Commands of LaTeX and amsmath that the document may use; a wrong one stops LaTeX.
COMMANDS = """
Big Bigl Bigr Phi Pi Rightarrow adjustbox alpha angle arccos bar begin beta bigl bigr cdot cdots cos
binom delta det displaystyle dot dots emph end epsilon eta forall frac gamma ge geq hat iff in infty
int item kappa lVert label lambda lceil le left leq lfloor linewidth log maketitle mapsto mathbb
mathbf mathrm max min mu ne neq nexists nu odot omega operatorname partial phi pi pm prod psi qquad
quad rVert rceil rfloor rho right sigma sim sin sqrt subset sum tan tanh tau text textasciicircum
textasciitilde textbackslash tfrac theta to top varepsilon zeta
"""


# --- the table ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Everything checked once, as `python -m theory` does, in processes of its own: the table, the
    document, and every lemma's proof as it came back."""
    path = tmp_path_factory.mktemp("theory") / "lemmas.tex"
    proofs = {}

    def kept(names, workers):
        for result in runner.carry_out_all(names, workers):
            proofs[result.name] = result.proof
            yield result

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as shown:
        patch.setattr(theory.__main__, "carry_out_all", kept)
        status = main(["--latex", str(path)])
    assert status == 0, shown.getvalue()
    return shown.getvalue(), path.read_text(), proofs


@pytest.fixture
def table(checked):
    return checked[:2]


@pytest.fixture
def proofs(checked):
    return checked[2]


def test_every_lemma_holds(table):
    shown, _ = table
    assert f"{len(LEMMAS)} of {len(LEMMAS)} hold" in shown
    assert all(re.search(rf"^{name} ", shown, re.MULTILINE) for name in LEMMAS)
    assert "FAILS" not in shown


class Rejected(Exception):
    """A step of a proof is false, whatever the steps after it are."""


class Steps(list):
    def append(self, step):
        super().append(step)
        if step.holds is False:
            raise Rejected(step.reason)


@pytest.mark.parametrize(("name", "words"), VARIANTS)
def test_a_wrong_variant_is_rejected(name, words, monkeypatch):
    monkeypatch.setattr(Proof, "__init__", lambda self: setattr(self, "steps", Steps()))
    with pytest.raises(Rejected):
        LEMMAS[name].check(**LEMMAS[name].wrong[words])


@pytest.mark.parametrize("name", LEMMAS)
def test_a_lemma_says_what_it_claims_and_can_be_wrong(name):
    said = LEMMAS[name].statement()
    assert said.how.startswith(KINDS)
    assert all((said.claim, said.source, said.hypotheses, said.latex))
    assert LEMMAS[name].wrong
    assert inspect.getmodule(LEMMAS[name].check).__doc__


def test_the_document_is_well_formed(table):
    _, tex = table
    body = tex.partition(r"\begin{document}")[2]
    environments = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", tex):
        if kind == "begin":
            environments.append(name)
        else:
            assert environments.pop() == name
    assert environments == []
    assert re.findall(r"\\([\[\]])", re.sub(r"\\\\", "", body)) == ["[", "]"] * body.count(r"\[ ")
    words = re.sub(
        r"\\\[.*?\\\]|\$[^$]*\$|\\label\{[^}]*\}", "", body, flags=re.DOTALL
    )  # no formulas
    assert not re.search(r"(?<!\\)[&%$#_^~<>|]", words)
    for piece in (words, *re.findall(r"\\\[(.*?)\\\]", body, flags=re.DOTALL)):
        plain = re.sub(r"\\[{}]", "", piece)
        assert plain.count("{") == plain.count("}")
        assert len(re.findall(r"\\left\b", piece)) == len(re.findall(r"\\right\b", piece))
    begun = len(re.findall(r"\\begin\{(?:lemma|counterexample)\}", body))
    assert begun == body.count(r"\begin{proof}") == len(LEMMAS)
    used = re.findall(r"\\([A-Za-z]+)", body.replace(r"\\", " "))  # \\ ends a row
    unknown = set(used) - set(COMMANDS.split())
    assert not unknown, f"not commands of LaTeX or amsmath: {unknown}"


def test_every_claim_and_every_formula_is_typeset(table, proofs):
    _, tex = table
    assert r"\text{True}" not in tex
    assert "left out" not in tex
    for lemma in LEMMAS.values():
        assert lemma.statement().latex in tex
    steps = [step for proof in proofs.values() for step in proof.steps]
    assert tex.count(r"\displaystyle") == len(LEMMAS) + sum(bool(step.latex) for step in steps)


def test_no_step_reads_as_a_tautology_or_runs_off_the_page(proofs):
    for name, proof in proofs.items():
        for step in proof.steps:
            left, _, right = step.plain.partition(" = ")
            assert not step.plain or left != right, f"{name}: {step.reason}: {step.plain}"
            assert len(step.latex) <= LONGEST, (
                f"{name}: {step.reason}: {len(step.latex)} characters"
            )


def test_listing_and_showing_as_latex(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", shown, re.MULTILINE) for name in LEMMAS)
    assert main(["show", "mu_pairwise", "--latex"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(r"\begin{lemma}[{mu-pairwise; WU")
    assert LEMMAS["mu-pairwise"].statement().latex in shown
    assert r"\end{proof}" in shown


def test_the_package_is_the_command():
    command = [sys.executable, "-m", "theory", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "mu-pairwise" in done.stdout


def test_showing_one_lemma(capsys):
    assert main(["show", "mu-pairwise"]) == 0
    shown = capsys.readouterr().out
    for part in ("hypotheses", "1. mu^2 by its definition", "rejects     pairs / N", "holds"):
        assert part in shown


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["show", "nothing"], "list` names all"),
        (["show", "lemma-13"], "did you mean lemma-13-corrected"),
        (["--workers", "0"], "at least 1"),
        (["--latex", "no/such/folder/a.tex"], "in no folder"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, rule, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert rule in shown
    assert shown.count("\n") == 1


# --- what a proof is ----------------------------------------------------------------------------


def test_steps_must_hold():
    x = sympy.Symbol("x")
    proof = Proof()
    proof.words("words alone prove nothing")
    assert not proof.holds
    proof.equal("true", (x + 1) ** 2, x**2 + 2 * x + 1)
    assert proof.holds
    proof.equal("false", (x + 1) ** 2, x**2 + 1)
    assert not proof.holds


def test_what_sympy_leaves_open_is_not_true():
    for name in ("true", "less"):
        proof, x = Proof(), sympy.Symbol("x")
        proof.true("unknown", x.is_positive) if name == "true" else proof.less("unknown", 0, x)
        assert not proof.holds


def test_what_is_less_is_shown_so():
    proof, e = Proof(), sympy.Symbol("e", positive=True)
    proof.less("sound", 1 / (1 + e), 1)
    proof.less("numbers", sympy.sqrt(2), sympy.Rational(3, 2))
    assert proof.holds
    proof.less("equal", e, e)
    assert not proof.holds


def test_a_formula_is_shown_as_it_was_before_rewriting():
    proof = Proof()
    proof.equal("numbers", "1/4 + acos(1/2)/(2*pi)", sympy.Rational(5, 12))
    (step,) = proof.steps
    assert step.holds
    assert step.plain == "1/4 + acos(1/2)/((2*pi)) = 5/12"
    assert step.latex.startswith(r"\frac{1}{4} + \frac{\operatorname{acos}")
    proof.equal("matrices keep their order", sympy.Integer(0), 0, shown=("B*A - A*B", "0"))
    assert proof.steps[-1].plain == "B*A - A*B = 0"
    for left, right, shown in (("1/2 - 1/3", "1/5", None), ("1/2", "1/2", ("1/3", "1/2"))):
        proof = Proof()
        proof.equal("false, or shown so", left, right, shown)
        assert not proof.holds
    with pytest.raises(ValueError, match="numbers alone"):
        proof.equal("letters have no signs or order", "a*b", "b*a")


def test_inequalities_need_coefficients_of_one_sign():
    a, b = sympy.symbols("a b", nonnegative=True)
    proof = Proof()
    proof.at_least("sound", (a + b) ** 2, 4 * a * b - 2 * a * b, (a, b))
    proof.at_least("a fraction", (1 + a) / (1 + b), 1 / (1 + b), (a, b))
    assert proof.holds
    below = Proof()
    below.at_least("1 - b may be negative", (1 + a) / (1 - b), 1 / (1 - b), (a, b))
    assert not below.holds
    proof.at_least("true, but not shown so", a**2 + b**2, 2 * a * b, (a, b))
    assert not proof.holds


def test_a_kind_of_check_must_be_named():
    with pytest.raises(ValueError, match="begins with one of proved"):
        Statement(claim="", source="", hypotheses="", latex="", how="tried a few numbers")


def test_a_check_that_breaks_is_a_failure_with_its_reason(monkeypatch, capsys):
    def broken():
        raise ZeroDivisionError("no such number")

    lemma = Lemma("broken", LEMMAS["hull"].statement, broken, {})
    monkeypatch.setattr(runner, "lemmas", lambda: {"broken": lemma})
    result = runner.carry_out("broken")
    assert not result.holds
    assert result.error == "ZeroDivisionError: no such number"
    assert "Verdict: fails" in document({"broken": lemma}, {"broken": result})


@given(st.lists(st.sampled_from([-1, 1]), min_size=1, max_size=9), st.integers(5, 30))
def test_schur_and_cohn_agree_with_numerical_roots(signs, tenths):
    roots = 1 + np.roots([1, *signs])
    largest, radius = abs(roots).max(), tenths / 10
    polynomial = sign_polynomial(signs)
    np.testing.assert_allclose(
        np.poly(roots)[::-1], polynomial, atol=1e-6 * max(map(abs, polynomial))
    )
    if abs(largest - radius) > 1e-6:
        assert all_inside(polynomial, Fraction(tenths, 10)) == (largest < radius)


# --- masks and collapse: dynsim's numbers -------------------------------------------------------


def test_the_pairwise_formula_gives_dynsims_mu(rng):
    X = rng.standard_normal((6, 3))
    pairs = sum(np.sum((a - b) ** 2) for a in X for b in X)
    expected = np.sqrt(pairs / (claimed("mu-pairwise", "factor") * 6))
    assert measures.mu(X) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("n", "window"), [(2, 1), (9, 2), (30, 7), (31, 4), (50, 49)])
def test_radii_and_centers(n, window):
    radius_of = {
        masks.local: claimed("radius-local", "radius")(n, window),
        masks.causal_local: claimed("radius-causal-local", "radius")(n, window),
    }
    for mask, radius in radius_of.items():
        assert connectivity.radius(mask(n, window)) == int(radius)
    assert connectivity.radius(masks.complete(n)) == claimed("radius-global", "complete_radius")
    assert list(connectivity.center_nodes(masks.causal(n)) + 1) == [1]
    assert len(connectivity.center_nodes(masks.local(n, window))) == n


@pytest.mark.parametrize("n", [4, 7, 12])
def test_lambda_2(n):
    kernel, theta = claimed("walk-ring", "kernel"), sympy.pi / n
    ring = kernel(1, 2 * theta) / sympy.sin(theta) / 3
    expected = {
        masks.complete(n): 0,
        masks.causal(n): claimed("walk-causal", "eigenvalue")(2),
        masks.causal_local(n, 2): sympy.Rational(1, 2),
        masks.ring(n): ring,
    }
    for mask, value in expected.items():
        assert dynsim.connectivity.lambda_2(mask).value == pytest.approx(float(value), abs=1e-12)


def test_a_smaller_radius_can_be_slower():
    slow = float(claimed("radius-is-no-rate", "slow"))
    assert connectivity.lambda_2(masks.local(4)).value == pytest.approx(slow, abs=1e-12)
    assert connectivity.radius(masks.local(4)) < connectivity.radius(masks.causal_local(4))


@pytest.mark.parametrize("mask", [masks.causal(6), masks.local(6), masks.causal_local(6, 2)])
def test_certified_bound_and_attention_floor(mask, rng):
    """mu stays under the certified bound, with eps and the stretch of W_V from the run itself."""
    n, d, depth = 6, 3, 12
    M, W = 0.3 * rng.standard_normal((d, d)), 0.5 * rng.standard_normal((d, d))
    dynamics = AttentionDynamics(mask, Fixed(M, W))
    x = x_0 = rng.standard_normal((n, d))
    floor, eps = claimed("attention-floor", "floor"), np.inf
    mus = []
    for _ in range(depth):
        A, scores = dynamics.attention(x)[0], x @ M @ x.T
        allowed = dynamics.allowed()
        for row in range(n):
            B = abs(scores[row, allowed[row]]).max()
            lowest = float(floor(int(allowed[row].sum()) - 1, np.exp(2 * B)))
            assert A[row, allowed[row]].min() >= lowest * (1 - 1e-12)
        eps = min(eps, A[allowed].min())
        x = dynamics.step(x)
        mus.append(measures.mu(x))
    r = int(connectivity.radius(mask))
    delta = max(np.linalg.norm(a - b) for a in x_0 for b in x_0)
    constant = np.sqrt(float(claimed("certified-bound", "square")(sympy.Integer(n)))) * delta
    for t, mu in enumerate(mus, 1):
        assert mu <= constant * np.linalg.norm(W, 2) ** t * (1 - eps**r) ** (t // r)


def test_the_cubic_law(rng):
    """One layer on the complete mask, s small: the deviation is s^3 Z M Z^T Z W_V / N."""
    n, d, s = 4, 3, 1e-3
    M, W, c = rng.standard_normal((d, d)), rng.standard_normal((d, d)), rng.standard_normal(d)
    Z = rng.standard_normal((n, d))
    Z -= Z.mean(axis=0)
    after = AttentionDynamics(masks.complete(n), Fixed(M, W)).step(c + s * Z)
    leading = claimed("cubic-law", "leading")(sympy.Matrix(Z), sympy.Matrix(M))
    expected = np.array(leading, float) @ W
    found = (after - after.mean(axis=0)) / s ** claimed("cubic-law", "order")
    np.testing.assert_allclose(found, expected, atol=0.02 * abs(expected).max())


def test_equiangular_tokens_stay_so():
    n, beta, rho = 5, 1.5, 0.2
    x = np.linalg.cholesky(rho + (1 - rho) * np.eye(n))  # unit rows with all cosines rho
    dynamics = AttentionDynamics(
        masks.complete(n), Fixed(beta * np.eye(n), np.eye(n)), norms.Unit()
    )
    for _ in range(3):
        weights = np.exp([beta, beta * rho])
        a, b = weights / (weights @ [1, n - 1])
        rho = claimed("equiangular", "layer")(n, rho, a, b)
        x = dynamics.step(x)
        np.testing.assert_allclose(x @ x.T, rho + (1 - rho) * np.eye(n), atol=1e-13)


def test_the_late_rate_is_lambda_2_whatever_the_scores(rng):
    n, d, s = 5, 2, 1e-6
    M, W = rng.standard_normal((d, d)), rng.standard_normal((d, d))
    Z, c = rng.standard_normal((n, d)), rng.standard_normal(d)
    mask = masks.local(n)
    dynamics = AttentionDynamics(mask, Fixed(M, W))
    slope = (dynamics.step(c + s * Z) - dynamics.step(c - s * Z)) / (2 * s)
    P = connectivity.uniform_walk(mask)
    np.testing.assert_allclose(slope, np.asarray(P @ Z) @ W, atol=1e-7)


def test_the_late_rate_drifts_where_tokens_grow():
    """Near 3/4 at first, as the linearisation says; then scores grow, and it tends to w."""
    w = float(claimed("late-rate-drifts", "w"))
    dynamics = AttentionDynamics(masks.causal(2), Fixed([[1.0]], [[w]]))
    x, rates = np.array([[0.1], [0.3]]), []
    for _ in range(30):
        after = dynamics.step(x)
        rates.append((after[1, 0] - after[0, 0]) / (x[1, 0] - x[0, 0]))
        x = after
    assert rates[0] == pytest.approx(w / 2, rel=0.05)
    assert rates[-1] == pytest.approx(w, rel=1e-6)


def test_late_multipliers_under_unit_norm():
    """At consensus e: lambda_i w_j / w_1 and zeros, from dynsim's step by differences."""
    W = np.array([[2.0, 0.0, 0.0], [0.3, 1.0, 0.0], [-0.5, 0.2, -0.5]])
    mask = masks.causal(3)
    scores = np.diag([1.0, 2.0, -1.0])
    dynamics = AttentionDynamics(mask, Fixed(scores, W), norms.Unit())
    consensus = np.tile([1.0, 0.0, 0.0], (3, 1))
    J = differences(dynamics.step, consensus)
    expected = [a * w / 2 for a in (1, 1 / 2, 1 / 3) for w in (1.0, -0.5)] + [0.0] * 3
    found = np.sort(np.linalg.eigvals(J).real)
    np.testing.assert_allclose(found, np.sort(expected), atol=1e-7)


def differences(f, x, h=1e-5):
    """The Jacobian of f at x by central differences; entries counted row by row."""
    columns = []
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        columns.append((f(x + step) - f(x - step)).ravel() / (2 * h))
    return np.array(columns).T


def test_the_cosine_step_and_where_it_fails(rng):
    """It holds for acute angles; for obtuse ones dynsim finds the counterexample's numbers."""
    n, d = 5, 4
    mask = masks.causal(n)
    dynamics = AttentionDynamics(mask, Fixed(rng.standard_normal((d, d)), np.eye(d)), norms.Unit())
    x = norms.Unit().apply(abs(rng.standard_normal((n, d))))
    for _ in range(5):
        eps, phi = dynamics.attention(x)[0][dynamics.allowed()].min(), measures.min_cosine(x)
        x = dynamics.step(x)
        share = eps ** claimed("cosine-step", "power")
        assert measures.min_cosine(x) >= share + (1 - share) * phi - 1e-14
    square = float(claimed("cosine-step-needs-acute", "square"))
    height, width = np.sqrt(square), np.sqrt(1 - square)
    M = np.diag([np.log(3) / (2 * width**2), 0.0])  # attention 3/4, 1/4
    dynamics = AttentionDynamics(masks.complete(2), Fixed(M, np.eye(2)), norms.Unit())
    after = dynamics.step(np.array([[width, height], [-width, height]]))
    assert measures.min_cosine(after) == pytest.approx(-95 / 103, rel=1e-12)
    assert measures.min_cosine(after) < 1 / 16 + 15 / 16 * (-49 / 50)


def test_the_radius_is_not_enough_for_all_centers():
    """dynsim's layer on three tokens has the lemma's cosine, under N eps^2r with r the radius."""
    mask, weight = masks.local(3), claimed("cosine-step-needs-diameter", "weight")
    M = np.diag([np.log(weight), 0.0, np.log(weight)])
    dynamics = AttentionDynamics(mask, Fixed(M, np.eye(3)), norms.Unit())
    eps, r = dynamics.attention(np.eye(3))[0][dynamics.allowed()].min(), connectivity.radius(mask)
    phi = measures.min_cosine(dynamics.step(np.eye(3)))
    assert phi == pytest.approx(1 / 5, rel=1e-14)
    assert phi < claimed("cosine-step-needs-diameter", "centers") * eps ** (2 * r)
    assert phi >= 3 * eps ** (2 * connectivity.diameter(mask))


def test_the_hemisphere_certificate(rng):
    n, d = 5, 3
    mask = masks.causal_local(n, 2)
    r = int(connectivity.radius(mask))
    turn, _ = np.linalg.qr(rng.standard_normal((d, d)))
    dynamics = AttentionDynamics(mask, Fixed(rng.standard_normal((d, d)), turn), norms.Unit())
    x = norms.Unit().apply(rng.standard_normal((n, d)) + np.array([1.5, 0.0, 0.0]))
    v = np.array([1.0, 0.0, 0.0])
    chart = x / (x @ v)[:, None]
    height, eps = (x @ v).min(), np.inf
    assert height > 0
    spread = max(np.linalg.norm(a - b) for a in chart for b in chart)
    for t in range(1, 15):
        A, h = dynamics.attention(x)[0], x @ v
        eps = min(eps, A[dynamics.allowed()].min())
        weights = A * h / (A @ h)[:, None]
        x, v, chart = dynamics.step(x), v @ turn, weights @ chart @ turn
        np.testing.assert_allclose(x / (x @ v)[:, None], chart, atol=1e-12)
        distance = max(np.linalg.norm(a - b) for a in x for b in x)
        assert distance <= (1 - (eps * height) ** r) ** (t // r) * spread + 1e-14


# --- equilibria: dynsim's numbers ---------------------------------------------------------------


@pytest.mark.parametrize("mask", ["causal", "window"])
def test_entries_of_products_in_the_chart(mask, rng):
    """Three layers of A_ij h_j / sum_k A_ik h_k: entries >= eps^r max(h, 1 - E)."""
    n, d = 4, 5
    for _ in range(20):
        x = rng.standard_normal((n, d)) + rng.choice([0.0, 2.0])
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        v = np.linalg.pinv(x) @ np.ones(n)
        v /= np.linalg.norm(v)
        assert np.ptp(x @ v) < 1e-9
        h, E = (x @ v).min(), None
        allowed = np.tri(n, dtype=bool) if mask == "causal" else abs(np.subtract.outer(
            range(n), range(n))) <= 1  # fmt: skip
        p = x / (x @ v)[:, None]
        E = max(np.linalg.norm(a - b) for a in p for b in p)
        product, eps = np.eye(n), 1.0
        for r in range(1, 4):
            A = np.where(allowed, np.exp(2 * rng.standard_normal((n, n))), 0)
            A /= A.sum(axis=1, keepdims=True)
            product = (A * (x @ v) / (A @ x @ v)[:, None]) @ product
            eps = min(eps, A[allowed].min())
            x = A @ x
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            seen = np.linalg.matrix_power(allowed.astype(int), r) > 0
            assert product[seen].min() >= eps**r * max(h, 1 - E) * (1 - 1e-9)
            shared = seen.all(axis=0).sum()
            tau = max(np.abs(a - b).sum() / 2 for a in product for b in product)
            assert tau <= 1 - shared * eps**r * max(h, 1 - E) + 1e-12


def planar(w):
    return AttentionDynamics(masks.causal(2), Jordan(w), norms.Unit())


def test_token_1_of_the_planar_example_is_algebraic():
    w, depth = 2.0, 4000
    x_0 = norms.Unit().apply(np.array([[1.0, -0.3], [0.5, 1.0]]))
    record = dynsim.Record(measures=(), states=depth)
    x = simulate(planar(w), x_0, depth, record=record).states[0, -1]
    assert depth * abs(x[0, 0]) == pytest.approx(1 / w, rel=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_slope_of_the_ratio_map_at_its_fixed_points(sign):
    w, h = 2.0, 1e-6
    y = sign * np.sqrt(1 - 1 / w**2)
    x = float(claimed("two-tokens-map", "first")(w))

    def ratio(q):  # of token 2 after a layer, from the ratio q at negative x
        token = -np.array([1.0, q]) / np.hypot(1.0, q)
        after = planar(w).step(np.array([[0.0, 1.0], token]))[1]
        return after[1] / after[0]

    assert ratio(y / x) == pytest.approx(y / x, rel=1e-12)
    slope = (ratio(y / x + h) - ratio(y / x - h)) / (2 * h)
    assert slope == pytest.approx(float(claimed("two-tokens-map", "slope")(x, y)), abs=1e-8)


@pytest.mark.parametrize("w", [1.5, 2.0, 5.0])
def test_share_of_the_circle_that_ends_at_full_rank(w):
    count = 4000
    angles = (np.arange(count) + 0.5) * 2 * np.pi / count
    second = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    x_0 = np.stack([np.tile([0.0, 1.0], (count, 1)), second], axis=1)
    record = dynsim.Record(measures=(), states=300)
    x = simulate(planar(w), x_0, 300, record=record).states[:, -1]
    at_B = np.linalg.norm(x[:, 1] - [-1 / w, -np.sqrt(1 - 1 / w**2)], axis=-1) < 1e-6
    share = float(claimed("two-tokens-basin", "share")(sympy.Float(w)))
    assert at_B.mean() == pytest.approx(share, abs=2 / count)


def test_the_hyperbolic_variant():
    a, c = 0.5, 1.5
    D = c**2 + (1 - a) ** 2
    dynamics = AttentionDynamics(
        masks.causal(2), Fixed(np.zeros((2, 2)), [[a, c], [0, 1]]), norms.Unit()
    )
    for sign in (1, -1):
        y = (-(1 - a) + sign * c * np.sqrt(D - 1)) / D
        x = (-1 - (1 - a) * y) / c
        state = np.array([[0.0, 1.0], [x, y]])
        np.testing.assert_allclose(dynamics.step(state), state, atol=1e-14)
        J = differences(dynamics.step, state)[2:, 2:]  # token 2's block; the radial multiplier is 0
        multiplier = float(claimed("two-tokens-hyperbolic", "slope")(y, a))
        assert max(np.linalg.eigvals(J).real) == pytest.approx(multiplier, abs=1e-8)
        assert (multiplier < 1) == (sign < 0)


def members(n, k, width):
    """The equilibria of Theorem 3 as numbers, all 2^k signs."""
    X = jordan.family(n, k)
    sizes = {
        jordan.w: width,
        jordan.r: np.sqrt(1 - width**-2),
        jordan.rho: np.sqrt(1 - ((n - k + 1) / width) ** 2),
    }
    evaluate = sympy.lambdify(jordan.s[:k], X.subs(sizes), "numpy")
    for signs in np.ndindex((2,) * k):
        yield np.array(evaluate(*(1 - 2 * s for s in signs)), float)


@pytest.mark.parametrize(("n", "k"), [(2, 2), (4, 1), (4, 3), (5, 5), (7, 4)])
def test_theorem_3_has_equilibria_of_every_rank(n, k):
    w = n - k + 1.25  # below N, where they exist already
    dynamics = AttentionDynamics(masks.causal(n), Jordan(w), norms.Unit())
    found = list(members(n, k, w))
    for X in found:
        np.testing.assert_allclose(dynamics.step(X), X, atol=1e-13)
        assert measures.rank(X) == k
        if k == n:
            bound = n / float(claimed("stable-rank", "column")(n).subs(jordan.w, w))
            assert measures.stable_rank(X) <= bound * (1 + 1e-14)
    assert len({X.tobytes() for X in found}) == 2**k


def test_lemma_13_loses_token_2_in_one_layer():
    w, token = (claimed("lemma-13-counterexample", name) for name in ("w", "token"))
    dynamics = AttentionDynamics(masks.causal(4), Jordan(float(w)), norms.Unit())
    x = np.array(token) / 14
    X = np.array([[0.0, 0.0, 0.0, 1.0]] * 3 + [x])[[0, 3, 1, 2]]
    after = dynamics.step(X)[1]
    assert np.all(x[:3] < 0)
    assert x[2] <= -1 / float(w)
    assert after[2] == pytest.approx(-11 / np.sqrt(2348), rel=1e-14)
    assert after[2] > -1 / float(w)


@given(st.integers(2, 6), st.integers(0, 999), st.floats(1.05, 8.0))
def test_lemma_13_holds_for_log_concave_tokens(d, seed, w):
    """Random starts in the corrected set, token 1 held: they stay in it, and f does not grow."""
    rng = np.random.default_rng(seed)
    ratios = np.sort(rng.exponential(size=d - 2))  # a_{j-1} / a_j, growing with j
    a = np.append(np.cumprod(ratios[::-1])[::-1], 1.0)  # up to a factor, a_{d-1} = 1
    assume(np.linalg.norm(a) < w)  # else no multiple is in the set
    a *= rng.uniform(1 / w, 1 / np.linalg.norm(a))
    x = np.append(-a, rng.choice([-1, 1]) * np.sqrt(max(0.0, 1 - a @ a)))
    dynamics = AttentionDynamics(masks.causal(2), Jordan(w), norms.Unit())
    held = np.eye(d)[-1]
    for _ in range(50):
        f = np.sum(x[: d - 2] ** 2) / x[d - 2] ** 2
        x = dynamics.step(np.array([held, x]))[1]
        assert np.all(x[: d - 1] <= 0)
        assert x[d - 2] <= -1 / w + 1e-12
        assert np.sum(x[: d - 2] ** 2) / x[d - 2] ** 2 <= f * (1 + 1e-12)


def test_multipliers_of_theorem_3_are_roots_of_the_polynomial():
    """The last token's block of dynsim's Jacobian against 1 + zeta, for w = 4 and any signs."""
    n, w = 4, 4.0
    dynamics = AttentionDynamics(masks.causal(n), Jordan(w), norms.Unit())
    for X in members(n, n, w):
        x = X[-1]
        B = [w**m * x[: n - m] @ x[m:] for m in range(n)]
        expected = np.append(1 + np.roots(B), 0.0)
        J = differences(dynamics.step, X)[-n:, -n:]
        found = np.poly(np.linalg.eigvals(J))
        np.testing.assert_allclose(found, np.poly(expected), atol=1e-6 * abs(found).max())


@pytest.mark.parametrize("w", [1.1, 2.0, 6.0])
def test_three_tokens_of_alternating_signs_leave_no_multiplier_above_1(w):
    (X,) = [X for X in members(3, 3, w) if np.all(np.sign(X[:, -1]) == [1, -1, 1])]
    dynamics = AttentionDynamics(masks.causal(3), Jordan(w), norms.Unit())
    moduli = abs(np.linalg.eigvals(differences(dynamics.step, X)[-3:, -3:]))
    square = float(claimed("three-tokens", "square")(np.sqrt(1 - w**-2)))
    np.testing.assert_allclose(sorted(moduli)[1:], np.sqrt(square), atol=1e-7)


@pytest.mark.parametrize("c", [0.3, 0.8])
def test_the_complete_mask_has_full_rank_equilibria(c):
    """The counterexample to App. F.4 and its multipliers: a saddle for small c, else a repeller."""
    T = 0.5
    a, s = np.arctanh(T), np.sqrt(1 - c**2)
    M, W = np.diag([0.0, a / s**2]), np.diag([1.0, 1 / T])
    dynamics = AttentionDynamics(masks.complete(2), Fixed(M, W), norms.Unit())
    X = np.array([[c, s], [c, -s]])
    np.testing.assert_allclose(dynamics.step(X), X, atol=1e-14)
    assert measures.rank(X) == 2
    found = np.sort(np.linalg.eigvals(differences(dynamics.step, X)).real)
    other = c**2 / T + s**2 * T + a * c**2 * (1 - T**2) / T
    expected = sorted([float(claimed("complete-full-rank", "symmetric")(a, c, T)), other])
    np.testing.assert_allclose(found[2:], expected, atol=1e-8)
    np.testing.assert_allclose(found[:2], 0, atol=1e-8)
    assert expected[1] > 1
    assert (expected[0] < 1) == (c**2 < T / ((1 + T) * (1 + a)))


def test_inverse_design(rng):
    n = 4
    X = norms.Unit().apply(rng.standard_normal((n, n)))
    M, nu = rng.standard_normal((n, n)), rng.uniform(0.5, 2.0, n)
    A = AttentionDynamics(masks.local(n), Fixed(M, np.eye(n))).attention(X)[0]
    W = claimed("inverse-design", "design")(
        sympy.Matrix(A), sympy.Matrix(X), sympy.diag(*nu.tolist())
    )
    dynamics = AttentionDynamics(masks.local(n), Fixed(M, np.array(W, float)), norms.Unit())
    np.testing.assert_allclose(dynamics.step(X), X, atol=1e-10)
    A = AttentionDynamics(masks.causal(n), Identity()).attention(X)[0]
    values = np.sort(np.linalg.eigvals(np.linalg.solve(A @ X, nu[:, None] * X)).real)
    np.testing.assert_allclose(values, np.sort(nu * np.arange(1, n + 1)), rtol=1e-8)


# --- LayerNorm's geometry: dynsim's numbers -----------------------------------------------------


@given(st.integers(2, 6), st.integers(0, 99), st.sampled_from([0.0, 1e-5, 0.3]))
def test_layernorm_in_closed_form(d, seed, eps):
    rng = np.random.default_rng(seed)
    a, g, b = rng.standard_normal(d), rng.uniform(0.5, 2, d), rng.standard_normal(d)
    y = norms.LayerNorm(gain=g, bias=b, eps=eps).apply(a)
    z = a - a.mean()
    shift = float(claimed("closed-form", "shift")(sympy.Float(eps)).subs(N, d))
    np.testing.assert_allclose(y, np.sqrt(d) * g * z / np.sqrt(z @ z + shift) + b, atol=1e-12)
    alpha = claimed("hyperplane", "normal")(g)
    assert (y - b) @ alpha == pytest.approx(0, abs=1e-12)
    form = np.sum(((y - b) / g) ** 2)
    gap = float(claimed("ellipsoid", "gap")(d, eps)) / (z @ z + d * eps)
    assert form == pytest.approx(d - gap, rel=1e-12)


def test_principal_axes(rng):
    """The images of many tokens have the covariance that the matrix G Pi G says."""
    d = 4
    g = np.array([1.0, 2.0, -0.5, 3.0])
    y = norms.LayerNorm(gain=g, eps=0.0).apply(rng.standard_normal((200_000, d)))
    share = float(claimed("principal-axes", "share")(d))
    H = np.diag(g**2) - share * np.outer(g, g)
    np.testing.assert_allclose(y.T @ y / len(y), d * H / (d - 1), atol=0.05)


def test_a_zero_gain_leaves_a_full_ellipsoid(rng):
    d, g = 4, np.array([1.0, 2.0, -0.5, 0.0])
    y = norms.LayerNorm(gain=g, eps=0.0).apply(rng.standard_normal((50, d)))
    np.testing.assert_array_equal(y[:, 3], 0.0)
    G, alpha = sympy.diag(*g[:3].tolist()), sympy.Matrix(1 / g[:3])
    form = np.array(claimed("zero-gain", "inverse")(G, alpha), float)
    np.testing.assert_allclose(np.einsum("si,ij,sj->s", y[:, :3], form, y[:, :3]), d, rtol=1e-12)


def test_norms_among_themselves(rng):
    a = rng.standard_normal((7, 5))
    layernorm, rms = norms.LayerNorm(eps=0.0), norms.RMSNorm(eps=0.0)
    np.testing.assert_allclose(layernorm.apply(3.0 * a + 2.0), layernorm.apply(a), atol=1e-12)
    np.testing.assert_allclose(layernorm.apply(layernorm.apply(a)), layernorm.apply(a), atol=1e-12)
    centred = a - a.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(rms.apply(centred), layernorm.apply(a), atol=1e-12)
    factor = np.sqrt(float(claimed("rms-is-layernorm", "length_squared").subs(N, 5)))
    np.testing.assert_allclose(factor * norms.Unit().apply(a), rms.apply(a), atol=1e-12)
    eps = 0.1
    V = a.var(axis=-1, keepdims=True)
    once = norms.LayerNorm(eps=eps).apply(a)
    twice = norms.LayerNorm(eps=eps).apply(once)
    np.testing.assert_allclose(twice, once / np.sqrt(V / (V + eps) + eps), atol=1e-12)


def test_angle_of_standardisation(rng):
    a = rng.standard_normal(6)
    y = norms.LayerNorm(eps=0.0).apply(a)
    cosine = a @ y / np.linalg.norm(a) / np.linalg.norm(y)
    to_ones = abs(a.sum()) / np.linalg.norm(a) / np.sqrt(6)
    assert np.degrees(np.arccos(cosine)) == pytest.approx(90 - np.degrees(np.arccos(to_ones)))


def test_affine_rank_can_grow():
    X = np.array(claimed("affine-rank", "tokens"), float)
    Y = norms.LayerNorm(eps=0.0).apply(X)
    for x, rank in ((X, "before"), (Y, "after")):
        assert measures.rank(x[1:] - x[0]) == claimed("affine-rank", rank)


def test_jacobians_of_the_norms(rng):
    d = 3
    a, g, eps = rng.standard_normal(d), rng.uniform(0.5, 2, d), 0.1
    J = differences(norms.LayerNorm(gain=g, eps=eps).apply, a)
    z = a - a.mean()
    s = np.sqrt(z @ z + d * eps)
    sign = claimed("jacobian-layernorm", "sign")
    Pi = np.eye(d) - 1 / d
    np.testing.assert_allclose(
        J, np.sqrt(d) * np.diag(g) @ (Pi / s + sign * np.outer(z, z) / s**3), atol=1e-8
    )
    J = differences(norms.RMSNorm(gain=g, eps=eps).apply, a)
    s = np.sqrt(a @ a / d + eps)
    divisor = claimed("jacobian-rms", "divisor")(d)
    expected = np.diag(g) @ (np.eye(d) / s - np.outer(a, a) / (divisor * s**3))
    np.testing.assert_allclose(J, expected, atol=1e-8)


def test_jacobian_of_attention(rng):
    """The lemma's formula, entry by entry, against differences of dynsim's step."""
    n, d = 4, 3
    X, M, W = rng.standard_normal((n, d)), rng.standard_normal((d, d)), rng.standard_normal((d, d))
    dynamics = AttentionDynamics(masks.local(n), Fixed(M, W))
    A, score = dynamics.attention(X)[0], claimed("jacobian-attention", "score")
    columns = []
    for index in np.ndindex(n, d):
        dX = np.zeros((n, d))
        dX[index] = 1
        dS = np.array(score(sympy.Matrix(dX), sympy.Matrix(M), sympy.Matrix(X)), float)
        dA = A * (dS - np.sum(A * dS, axis=1, keepdims=True))
        columns.append(((A @ dX + dA @ X) @ W).ravel())
    np.testing.assert_allclose(np.array(columns).T, differences(dynamics.step, X), atol=1e-7)
