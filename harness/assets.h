/* assets.h - files of harness/html, embedded at build. */
#ifndef ICE_ASSETS_H
#define ICE_ASSETS_H

extern const char asset_report_css[], asset_tables_js[], asset_charts_js[];

#endif
