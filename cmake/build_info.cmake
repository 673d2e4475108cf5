# Writes OUT, a header that says what this build was made from and with; run at each build, it touches the file only
# when that changes. SOURCE is the project's folder, COMPILER and FLAGS are words for people.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit "unknown")
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define BITNET_COMMIT \"@commit@\"
#define BITNET_COMPILER \"@COMPILER@\"
#define BITNET_COMPILE_FLAGS \"@FLAGS@\"
" @ONLY)
