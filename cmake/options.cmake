# Kernels and packed layouts ask for -O3 themselves; the rest gains nothing from it but a longer build.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")

add_library(bitnet_options INTERFACE)
target_compile_options(bitnet_options INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wno-unused-parameter
  # The order of every float operation is part of the contract (docs/numerics.md): no fused multiply-add on its own.
  -ffp-contract=off -fno-math-errno)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(bitnet_options INTERFACE -Wno-psabi -Wno-restrict
                         -Wno-missing-field-initializers)
else()
  target_compile_options(bitnet_options INTERFACE -Wno-missing-field-initializers)
endif()
if(BITNET_WERROR)
  target_compile_options(bitnet_options INTERFACE -Werror)
endif()
set(BITNET_HOT_OPTIONS -O3)  # kernels and packed layouts
if(BITNET_SANITIZE)
  set(BITNET_HOT_OPTIONS -O1)  # instrumented, each of their files would compile for a minute
  target_compile_options(bitnet_options INTERFACE -fsanitize=${BITNET_SANITIZE} -fno-sanitize-recover=all
                         -fno-omit-frame-pointer)
  target_link_options(bitnet_options INTERFACE -fsanitize=${BITNET_SANITIZE})
else()
  # The hardening that distributions use; the kernels' hot loops touch none of it.
  target_compile_options(bitnet_options INTERFACE -fstack-protector-strong
                         $<$<CONFIG:Release>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -D_GLIBCXX_ASSERTIONS>)
  target_link_options(bitnet_options INTERFACE $<$<PLATFORM_ID:Linux>:-Wl,-z,relro,-z,now>)
endif()
