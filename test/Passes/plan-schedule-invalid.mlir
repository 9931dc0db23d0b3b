// What kv-plan-schedule refuses: options and modules.
// RUN: split-file %s %t
// RUN: kvcc-opt %t/compute.mlir -kv-plan-schedule=compute=f64 -verify-diagnostics
// RUN: kvcc-opt %t/cuda-int8.mlir -kv-plan-schedule=compute=int8 -verify-diagnostics
// RUN: kvcc-opt %t/cuda-int16.mlir -kv-plan-schedule=compute=int16 -verify-diagnostics
// RUN: kvcc-opt %t/cuda-f32-model.mlir -kv-plan-schedule=compute=f16 -verify-diagnostics
// RUN: kvcc-opt %t/cpu-f16.mlir -kv-plan-schedule=compute=f16 -verify-diagnostics
// RUN: kvcc-opt %t/cpu-bf16.mlir -kv-plan-schedule=compute=bf16 -verify-diagnostics
// RUN: kvcc-opt %t/fp8-int8.mlir -kv-plan-schedule=compute=int8 -verify-diagnostics
// RUN: kvcc-opt %t/page.mlir -kv-plan-schedule=page=100 -verify-diagnostics
// RUN: kvcc-opt %t/heads.mlir -kv-plan-schedule=heads=3 -verify-diagnostics
// RUN: kvcc-opt %t/heads-negative.mlir -kv-plan-schedule=heads=-2 -verify-diagnostics
// RUN: kvcc-opt %t/accumulators.mlir -kv-plan-schedule=accumulators=33 -verify-diagnostics
// RUN: kvcc-opt %t/queries.mlir -kv-plan-schedule=queries=17 -verify-diagnostics
// RUN: kvcc-opt %t/target.mlir -kv-plan-schedule -verify-diagnostics
// RUN: kvcc-opt %t/target-type.mlir -kv-plan-schedule -verify-diagnostics

//--- compute.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @compute(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected compute auto, f32, f16, bf16, int16 or int8, but got f64}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- cpu-bf16.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "avx512_vnni">} {
  func.func @cpu_bf16(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected compute bf16 with cpu level avx512_bf16, but got avx512_vnni}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- cuda-int8.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @cuda_int8(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected compute auto, f32 or f16 for a cuda target, but got int8}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- cuda-int16.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @cuda_int16(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected compute auto, f32 or f16 for a cuda target, but got int16}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- cuda-f32-model.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f32, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @cuda_f32_model(%q: tensor<?x8x64xf32>, %cache: !cache) {
    // expected-error @below {{expected compute f16 with a cuda target and numbers of 16 bits, but got f32}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf32>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- cpu-f16.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @cpu_f16(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected compute f16 with a cuda target and numbers of 16 bits, but got a CPU}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- fp8-int8.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>,
                   value = <f8E4M3FN, map = sym, group = 1x64, scale = f16>,
                   window = <sink = 0, recent = 0, flush = 1>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @fp8_int8(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected compute auto or f32 with elements of f8E4M3FN, but got int8}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- page.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @page(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected page a multiple of 32 from 32 to 65536, but got 100}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- heads.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @heads(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected heads that divide the 4 query heads of a KV head, but got 3}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- heads-negative.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @heads_negative(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected heads that divide the 4 query heads of a KV head, but got -2}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- queries.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @heads_negative(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected queries from 1 to 16, or 0 for those that cost nothing, but got 17}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- accumulators.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @accumulators(%q: tensor<?x8x64xf16>, %cache: !cache) {
    // expected-error @below {{expected accumulators from 0 to 32, but got 33}}
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- target.mlir
// expected-error @below {{expected attribute kv.target on the module, such as #kv.target<cpu, "generic"> or #kv.target<cuda, "sm_90">, but got none}}
module {}

//--- target-type.mlir
// expected-error @below {{expected attribute kv.target on the module}}
module attributes {kv.target = "cpu"} {}
