import { FakeClock } from '../../src/base/fake-clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { SystemRandom } from '../../src/base/random.ts'
import { defaultCaSubject } from '../../src/issuance/ca-certificate.ts'
import type { MlDsaParameterSet } from '../../src/pq-crypto/ml-dsa.ts'
import {
  AuthorityManager,
  type AuthorityManagerOptions,
} from '../../src/server/authority/authority-manager.ts'
import { nobody } from '../../src/server/authority/holders.ts'
import { openSqliteDatastore } from '../../src/server/datastore/sql/sqlite.ts'
import { newAlternativeKeysInMemory } from '../../src/server/plugin/key-manager/alternative-keys.ts'
import { withAlternativeKeys } from '../../src/server/plugin/key-manager/hybrid.ts'
import { newMemoryKeyManager } from '../../src/server/plugin/key-manager/memory.ts'
import type { Bundle } from '../../src/spiffe/bundle.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'

export { newAlternativeKeysInMemory, newMemoryKeyManager, withAlternativeKeys }

export const hour = 3600
export const day = 24 * hour
export const trustDomain = parseTrustDomain('example.org')

/** Options with real parts in memory, a clock that stands, authorities of a day and SVIDs of an hour. */
export function authorityOptions(
  options: Partial<AuthorityManagerOptions> = {},
): AuthorityManagerOptions {
  return {
    datastore: openSqliteDatastore({ path: ':memory:', log: silentLog }),
    keyManager: newMemoryKeyManager(),
    holders: nobody,
    clock: new FakeClock(),
    random: new SystemRandom(),
    log: silentLog,
    trustDomain,
    serverName: 'server-1',
    caTtlSeconds: day,
    caKeyType: 'ec-p256',
    pqParameterSet: undefined,
    jwtKeyType: 'ec-p256',
    caSubject: defaultCaSubject,
    propagationDelaySeconds: 60,
    refreshHintSeconds: 300,
    svidDefaults: {
      x509SvidTtlSeconds: hour,
      agentSvidTtlSeconds: 2 * hour,
      jwtSvidTtlSeconds: 300,
      jwtIssuer: undefined,
    },
    ...options,
  }
}

/** Authorities at the start of their lives, with the parts they were made of. */
export async function openAuthorities(options: Partial<AuthorityManagerOptions> = {}) {
  const clock = new FakeClock()
  const all = authorityOptions({ clock, ...options })
  const manager = await AuthorityManager.open(all)
  return {
    ...all,
    clock,
    manager,
    bundle: () => bundleIn(all),
    nowSeconds: () => nowSecondsOf(clock),
  }
}

/** A server's parts that outlive its starts, each of which may want post-quantum keys of another parameter set. */
export function newHybridServer(given: Partial<AuthorityManagerOptions> = {}) {
  const clock = new FakeClock()
  const options = authorityOptions({ clock, ...given })
  const classical = newMemoryKeyManager()
  const alternatives = newAlternativeKeysInMemory()
  return {
    options,
    clock,
    classical,
    alternatives,
    start: (pqParameterSet: MlDsaParameterSet | undefined) =>
      AuthorityManager.open({
        ...options,
        pqParameterSet,
        keyManager: withAlternativeKeys(classical, { alternatives, parameterSet: pqParameterSet }),
      }),
    bundle: () => bundleIn(options),
    nowSeconds: () => nowSecondsOf(clock),
  }
}

async function bundleIn({
  datastore,
  trustDomain: name,
}: Pick<AuthorityManagerOptions, 'datastore' | 'trustDomain'>): Promise<Bundle> {
  const found = await datastore.bundle(name)
  if (found === undefined) throw new Error('there is no bundle')
  return found
}

const nowSecondsOf = (clock: FakeClock): number => Math.floor(clock.now().epochMilliseconds / 1000)

/** A number of seconds to advance a clock by. */
export const seconds = (count: number): Temporal.Duration =>
  Temporal.Duration.from({ seconds: count })
