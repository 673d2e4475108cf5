# The few commands a newcomer needs; everything else is plain CMake (see CMakePresets.json).
JOBS ?= $(shell nproc)
.PHONY: help build-dir deps build demo test test-quick lint format bench clean

help:
	@echo "make build   build/release/bin/bitnet (installs nothing; 'make deps' names and installs what is missing)"
	@echo "make demo    install what is missing, build, and let the shipped model tell a story"
	@echo "make test    install what is missing, build with g++ and run all tests"
	@echo "make lint    formatting, include directions, clang-tidy"
	@echo "make bench   all micro-benchmarks; BENCH=--benchmark_filter=NAME runs some; the JSON lies in build/bench/results"

deps:
	@scripts/install_deps.sh build

build: | build-dir
	@scripts/install_deps.sh --check build
	cmake --preset release
	cmake --build build/release -j $(JOBS)

demo: | build-dir
	@scripts/install_deps.sh build
	@$(MAKE) --no-print-directory build
	@echo
	build/release/bin/bitnet run -m models/storyteller-29m.gguf -p "Once upon a time there was a little girl who" --echo -n 160 --temp 0.6 --repeat-penalty 1.1 --seed 2

test: | build-dir
	@scripts/install_deps.sh test
	cmake --preset dev
	cmake --build build/dev -j $(JOBS)
	ctest --test-dir build/dev --output-on-failure -j $(JOBS)

lint:
	@scripts/install_deps.sh lint
	scripts/lint.sh

format:
	git ls-files '*.h' '*.cc' '*.cu' '*.cuh' | xargs clang-format -i

bench: | build-dir
	@scripts/install_deps.sh test
	cmake --preset release -B build/bench -DBITNET_BENCH=ON
	cmake --build build/bench -j $(JOBS) --target benches
	scripts/run_benches.sh build/bench $(BENCH)

clean:
	rm -rf build

build-dir:
	@mkdir -p build
