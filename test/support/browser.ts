import { existsSync } from 'node:fs'
import process from 'node:process'
import { type Browser, chromium } from 'playwright-core'

const program = '/usr/bin/chromium'

/** Why no test can drive a browser here; false when it can. */
export const noChromium: string | false = existsSync(program)
  ? false
  : 'chromium is not installed: scripts/install check'

/** Chromium without a screen, that asks nobody for updates. */
export const openBrowser = (): Promise<Browser> =>
  chromium.launch({
    executablePath: program,
    args: [
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      // Its sandbox does not work as root.
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
    ],
  })
