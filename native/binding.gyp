{
  "target_defaults": {
    "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
    "defines": ["NAPI_VERSION=9", "NAPI_CPP_EXCEPTIONS"],
    "cflags_cc!": ["-fno-exceptions"],
    "cflags_cc": ["-fexceptions", "-std=c++20", "-Wall", "-Wextra"]
  },
  "targets": [
    {
      "target_name": "assay_tpm",
      "sources": ["tss2/transport.cc"],
      "libraries": ["<!@(pkg-config --libs tss2-tctildr tss2-rc)"]
    },
    {
      "target_name": "assay_host",
      "sources": ["host/host.c"],
      "cflags_c": ["-std=gnu11", "-Wall", "-Wextra"]
    }
  ]
}
