# `cmake --install`: the command, the library with its headers, the shipped weights, and a CMake package.
include(CMakePackageConfigHelpers)
set(SWITCHBACK_INSTALL_CMAKE ${CMAKE_INSTALL_LIBDIR}/cmake/switchback)
set(SWITCHBACK_INSTALL_WEIGHTS ${CMAKE_INSTALL_DATADIR}/switchback/weights)

# What a user links: switchback::switchback (the command is the target `switchback`, hence the other name here).
add_library(switchback_library INTERFACE)
add_library(switchback::switchback ALIAS switchback_library)
target_link_libraries(switchback_library INTERFACE switchback_viz)
target_compile_features(switchback_library INTERFACE cxx_std_20)
# <switchback/switchback.h>, and the "engine/…" paths that the headers use among themselves.
target_include_directories(switchback_library INTERFACE
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/switchback>)
set_target_properties(switchback_library PROPERTIES EXPORT_NAME switchback)
foreach(part kernels engine viz)
  set_target_properties(switchback_${part} PROPERTIES EXPORT_NAME ${part})
endforeach()

install(TARGETS switchback_library switchback_viz switchback_engine switchback_kernels EXPORT switchbackTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT switchbackTargets NAMESPACE switchback:: DESTINATION ${SWITCHBACK_INSTALL_CMAKE})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/switchbackConfig.cmake.in
  ${PROJECT_BINARY_DIR}/switchbackConfig.cmake INSTALL_DESTINATION ${SWITCHBACK_INSTALL_CMAKE}
  PATH_VARS SWITCHBACK_INSTALL_WEIGHTS)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/switchbackConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/switchbackConfig.cmake ${PROJECT_BINARY_DIR}/switchbackConfigVersion.cmake
  DESTINATION ${SWITCHBACK_INSTALL_CMAKE})

set(headers ${CMAKE_INSTALL_INCLUDEDIR}/switchback)
install(FILES ${PROJECT_SOURCE_DIR}/viz/switchback.h DESTINATION ${headers})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/kernels ${PROJECT_SOURCE_DIR}/engine ${PROJECT_SOURCE_DIR}/viz
  DESTINATION ${headers} FILES_MATCHING PATTERN "*.h" PATTERN "emulator" EXCLUDE PATTERN "switchback.h" EXCLUDE PATTERN "json.h" EXCLUDE)
install(FILES ${SWITCHBACK_GENERATED}/engine/version.h DESTINATION ${headers}/engine)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/weights/ DESTINATION ${SWITCHBACK_INSTALL_WEIGHTS}
  FILES_MATCHING PATTERN "*.safetensors" PATTERN "*.json" PATTERN "*.txt" PATTERN "*.png" PATTERN "*.npy")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/switchback)
install(FILES ${PROJECT_SOURCE_DIR}/viz/pictures/fonts/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/switchback
  RENAME LICENSE.font)
if(TARGET switchback)
  install(TARGETS switchback RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
