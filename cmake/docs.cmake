# The code blocks of README.md and docs/guide/*.md, as tests: scripts/check_docs.py.
function(bitnet_check_docs)
  add_library(bitnet_docs_options INTERFACE)  # behind the others: a block may name what it does not use
  target_compile_options(bitnet_docs_options INTERFACE -Wno-unused -Wno-shadow)
  file(GLOB pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/guide/*.md)
  foreach(page IN LISTS pages ITEMS ${PROJECT_SOURCE_DIR}/README.md)
    get_filename_component(name ${page} NAME_WE)
    string(TOLOWER ${name} name)
    set(command ${PYTHON3} ${PROJECT_SOURCE_DIR}/scripts/check_docs.py run ${page} --source ${PROJECT_SOURCE_DIR}
                --bitnet $<TARGET_FILE:bitnet_cli>)
    # A page that gets its first C++ block wants a program.
    set_property(DIRECTORY ${PROJECT_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${page})
    file(STRINGS ${page} cpp_blocks REGEX "^```cpp")
    if(cpp_blocks)
      set(source ${PROJECT_BINARY_DIR}/docs/${name}.cc)
      add_custom_command(OUTPUT ${source} DEPENDS ${page} ${PROJECT_SOURCE_DIR}/scripts/check_docs.py VERBATIM
                         COMMAND ${PYTHON3} ${PROJECT_SOURCE_DIR}/scripts/check_docs.py extract ${page} ${source})
      add_executable(docs_${name} ${source})
      target_include_directories(docs_${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
      target_link_libraries(docs_${name} PRIVATE bitnet::bitnet bitnet_options bitnet_headers bitnet_docs_options)
      list(APPEND command --program $<TARGET_FILE:docs_${name}>)
    endif()
    add_test(NAME docs.${name} COMMAND ${command})
    set_tests_properties(docs.${name} PROPERTIES LABELS docs TIMEOUT 900)
  endforeach()
endfunction()
