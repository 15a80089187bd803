import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Clock } from '#base/clock.ts'
import { SystemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { openPkcs11KeyManager, type Pkcs11KeyManager } from '#server/plugin/key-manager/pkcs11.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { newSoftHsm, type SoftHsm } from './softhsm.ts'

const run = promisify(execFile)
const source = fileURLToPath(new URL('../fault/pkcs11-shim.c', import.meta.url))

/** A software token behind a module that misbehaves on request. */
export interface FaultyHsm extends AsyncDisposable {
  readonly token: SoftHsm
  /** Path of the module that misbehaves. */
  readonly module: string
  readonly environment: Readonly<Record<string, string>>
  /** Has the module do that from now on, in the words of `pkcs11-shim.c`; nothing when empty. */
  misbehave(fault: string): Promise<void>
  /** How often the module was asked for that function. */
  calls(name: string): Promise<number>
  /** A key manager on the token, through the module. */
  open(options?: FaultyHsmOptions): Promise<Pkcs11KeyManager>
  /** The same, past the module. */
  openDirectly(options?: FaultyHsmOptions): Promise<Pkcs11KeyManager>
}

/** What a test may set. */
export interface FaultyHsmOptions {
  readonly clock?: Clock
  readonly log?: Log
  readonly signTimeout?: Temporal.Duration
  readonly keyProbeInterval?: Temporal.Duration
  readonly refusalFile?: string
  readonly sessions?: number
  readonly signerCommand?: readonly string[]
  readonly signerSocketPath?: string
  /** Undefined: a credential's. */
  readonly pinFile?: string | undefined
  readonly trustDomain?: string
}

/** Builds the module with the C compiler and makes a token. */
export async function newFaultyHsm(): Promise<FaultyHsm> {
  const token = await newSoftHsm()
  const directory = await mkdtemp(join(tmpdir(), 'assay-shim-'))
  const module = join(directory, 'pkcs11-shim.so')
  const control = join(directory, 'control')
  const calls = join(directory, 'calls')
  await run('cc', ['-std=gnu11', '-O1', '-shared', '-fPIC', '-o', module, source])
  await writeFile(calls, '')
  const environment = {
    ...token.environment,
    PKCS11_SHIM_MODULE: token.module,
    PKCS11_SHIM_CONTROL: control,
    PKCS11_SHIM_CALLS: calls,
  }
  const open = (
    path: string,
    { trustDomain = 'example.org', ...options }: FaultyHsmOptions,
  ): Promise<Pkcs11KeyManager> =>
    openPkcs11KeyManager({
      module: path,
      tokenLabel: token.tokenLabel,
      pinFile: token.pinFile,
      environment,
      trustDomain: parseTrustDomain(trustDomain),
      clock: new SystemClock(),
      monotonicMs: () => performance.now(),
      random: new SystemRandom(),
      log: silentLog,
      ...options,
    })
  return {
    token,
    module,
    environment,
    async misbehave(fault) {
      await writeFile(`${control}.new`, fault)
      await rename(`${control}.new`, control)
    },
    async calls(name) {
      return (await readFile(calls, 'utf8')).split('\n').filter((line) => line === name).length
    },
    open: (options = {}) => open(module, options),
    openDirectly: (options = {}) => open(token.module, options),
    async [Symbol.asyncDispose]() {
      await rm(directory, { recursive: true })
      await token[Symbol.asyncDispose]()
    },
  }
}
