// The entries of a CpuKernels that float_ops.inc.h, dot_ops.inc.h and training_ops.inc.h provide, in the table's order.
scale_sums, {dot<F32Row>, dot<F16Row>, dot<Q8_0Row>, dot<Bf16Row>, dot<Q6_KRow>, dot<Q4_0Row>, dot<Q4_KRow>},
    {widen<F32Row>, widen<F16Row>, widen<Q8_0Row>, widen<Bf16Row>, widen<Q6_KRow>, widen<Q4_0Row>, widen<Q4_KRow>},
    rms_norm, quantize, fake_quantize, rope, {narrow_f32, narrow_f16, narrow_q8_0}, softmax,
    {weighted_sum<F32Row>, weighted_sum<F16Row>, weighted_sum<Q8_0Row>}, scale, gate_relu2, gate_silu, add_to,
    sketch_row, {
  product_i16, product_f32, scale_product, absmax, sum_squares, column_absmax, quantize_i16, quantize_pairs,
      widen_pairs, rms_norm_backward, relu2_backward, silu_backward, softmax_backward, dot_product, add_scaled, adamw
}
