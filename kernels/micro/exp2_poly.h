/* exp2_poly.h - 2^r on [-1/2, 1/2] for every instruction set: minimax polynomial of degree 6, c0 fixed to 1 so that
 * 2^0 = 1 exactly; relative error of the polynomial 2e-9 (Remez, computed for this project). */
#define VEC_EXP2_POLY(r)                                                                                               \
  vf_fma(vf_fma(vf_fma(vf_fma(vf_fma(vf_fma(vf_set1(1.5345812e-4f), (r), vf_set1(1.3399931e-3f)), (r),                 \
                                     vf_set1(9.6184890e-3f)),                                                          \
                              (r), vf_set1(5.5503288e-2f)),                                                            \
                       (r), vf_set1(2.4022647e-1f)),                                                                   \
                (r), vf_set1(6.9314721e-1f)),                                                                          \
         (r), vf_set1(1.0f))
