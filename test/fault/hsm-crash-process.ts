// A server's authorities with keys in a token, for hsm-key-hygiene.test.ts. With `dies`, it kills itself at the worst
// point: the key is in the token, and the journal does not say so yet. Takes one JSON argument.
import process from 'node:process'
import { SystemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { SystemRandom } from '../../src/base/random.ts'
import { AuthorityManager } from '../../src/server/authority/authority-manager.ts'
import { openSqliteDatastore } from '../../src/server/datastore/sql/sqlite.ts'
import { openPkcs11KeyManager } from '../../src/server/plugin/key-manager/pkcs11.ts'
import { authorityOptions, trustDomain } from '../support/authorities.ts'

/** What the process is to do. */
export interface CrashProcessOptions {
  readonly module: string
  readonly tokenLabel: string
  readonly pinFile: string
  readonly environment: Readonly<Record<string, string>>
  /** Path of the datastore. */
  readonly path: string
  readonly dies: boolean
}

const options: CrashProcessOptions = JSON.parse(process.argv[2] ?? '')
const { module, tokenLabel, pinFile, environment } = options
await using keyManager = await openPkcs11KeyManager({
  ...{ module, tokenLabel, pinFile, environment, trustDomain },
  clock: new SystemClock(),
  monotonicMs: () => performance.now(),
  random: new SystemRandom(),
  log: silentLog,
})
await using datastore = openSqliteDatastore({ path: options.path, log: silentLog })
const mortal = new Proxy(datastore, {
  get(target, name) {
    const value: unknown = Reflect.get(target, name, target)
    if (typeof value !== 'function') return value
    return (...args: unknown[]) => {
      if (options.dies && name === 'putJournal' && keyManager.keys().length > 0) {
        process.kill(process.pid, 'SIGKILL')
      }
      return Reflect.apply(value, target, args)
    }
  },
})
const clock = new SystemClock()
using manager = await AuthorityManager.open(
  authorityOptions({ datastore: mortal, keyManager, clock }),
)
const { healthy } = manager.health()
process.stdout.write(JSON.stringify({ healthy, orphans: manager.orphanKeys() }))
