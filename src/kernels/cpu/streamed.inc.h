// Included inside the anonymous namespace of an isa_NAME.cc whose kernels ask for weights ahead of their use: their
// tables for the level of the cache that these go to.
template <int kLevel>
constexpr TernaryKernels fields() {
  return {matvec_tile<kLevel>, unpack_tile, dot_rows<kLevel>, add_columns<kLevel>};
}
template <int kLevel>
constexpr SketchKernels sketch() {
  return {sketch_matvec_tile<kLevel>, sketch_unpack_tile};
}
