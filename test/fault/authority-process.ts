// A server's authorities on real files, for authority-rotation.test.ts to kill. Takes one JSON argument and
// writes one line of JSON for each thing the test must know, before it goes on.
import { writeSync } from 'node:fs'
import { join } from 'node:path'
import { FakeClock } from '../../src/base/fake-clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { AuthorityManager } from '../../src/server/authority/authority-manager.ts'
import { openSqliteDatastore } from '../../src/server/datastore/sql/sqlite.ts'
import { openDiskKeyManager } from '../../src/server/plugin/key-manager/disk.ts'
import { authorityOptions } from '../support/authorities.ts'
import { checkAuthorities, liveThrough, withPoints } from '../support/authority-life.ts'

/** What the process is to do. */
export interface AuthorityProcessOptions {
  readonly directory: string
  /** `live`: from first start on, until the point `killAt`. `check`: restart, check, issue. */
  readonly task: 'live' | 'check'
  /** Zero: never. */
  readonly killAt: number
  readonly startSeconds: number
}

/** A line the process writes. */
export type AuthorityProcessLine =
  | { readonly point: string; readonly nowSeconds: number }
  | { readonly issuedBy: string; readonly expiresAtSeconds: number }
  | { readonly prepared: string }

const options: AuthorityProcessOptions = JSON.parse(process.argv[2] ?? '')
const write = (line: AuthorityProcessLine): void => {
  writeSync(1, `${JSON.stringify(line)}\n`)
}

const clock = new FakeClock(Temporal.Instant.fromEpochMilliseconds(options.startSeconds * 1000))
const nowSeconds = (): number => Math.floor(clock.now().epochMilliseconds / 1000)
await using keyManager = await openDiskKeyManager({
  path: join(options.directory, 'keys.json'),
  log: silentLog,
})
await using datastore = openSqliteDatastore({
  path: join(options.directory, 'datastore.sqlite3'),
  log: silentLog,
})
const parts = { ...authorityOptions({ datastore, keyManager }), clock }
const issued = (issuedBy: string): void => {
  write({ issuedBy, expiresAtSeconds: nowSeconds() + 60 })
}

if (options.task === 'check') {
  using manager = await AuthorityManager.open(parts)
  issued(await checkAuthorities(manager, parts))
} else {
  let count = 0
  const mortal = withPoints(parts, (point) => {
    write({ point, nowSeconds: nowSeconds() })
    if (++count === options.killAt) process.kill(process.pid, 'SIGKILL')
  })
  await liveThrough(mortal, issued, (prepared) => write({ prepared }))
}
