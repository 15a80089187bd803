import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import type { Metrics } from '#telemetry/metrics.ts'
import { pqKeysPath, pqParameterSet, type ServerConfig } from '../config.ts'
import type { Datastore } from '../datastore/datastore.ts'
import { DatastoreTpmInventory } from '../node/tpm-inventory.ts'
import {
  newAlternativeKeysInMemory,
  openAlternativeKeys,
} from '../plugin/key-manager/alternative-keys.ts'
import { openDiskKeyManager } from '../plugin/key-manager/disk.ts'
import { withAlternativeKeys } from '../plugin/key-manager/hybrid.ts'
import type { KeyManager } from '../plugin/key-manager/key-manager.ts'
import { newMemoryKeyManager } from '../plugin/key-manager/memory.ts'
import { openPkcs11KeyManager } from '../plugin/key-manager/pkcs11.ts'
import { TokenPair } from '../plugin/key-manager/token-pair.ts'
import { JoinTokenAttestor } from '../plugin/node-attestor/join-token.ts'
import type { NodeAttestor } from '../plugin/node-attestor/node-attestor.ts'
import { createTpmNodeAttestor } from '../plugin/node-attestor/tpm.ts'
import { newDiskUpstream } from '../plugin/upstream-authority/disk.ts'
import { Pkcs11Upstream } from '../plugin/upstream-authority/pkcs11.ts'
import type { UpstreamAuthority } from '../plugin/upstream-authority/upstream-authority.ts'
import { loadEndorsementAuthorities } from './endorsement-authorities.ts'

/** What plugins are made with. */
export interface CatalogDependencies {
  readonly clock: Clock
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
  readonly random: Random
  readonly log: Log
}

/**
 * Opens the key manager the configuration names, with post-quantum keys beside those of X.509 authorities where they are
 * wanted, or were.
 *
 * @throws AssayError that says what to do.
 */
export async function openKeyManager(
  config: ServerConfig,
  dependencies: CatalogDependencies & { readonly metrics: Metrics },
): Promise<KeyManager> {
  const { random, log } = dependencies
  const parameterSet = pqParameterSet(config)
  const path = pqKeysPath(config)
  const isKept = config.key_manager.kind !== 'memory'
  const classical = await openClassicalKeyManager(config, dependencies)
  if (parameterSet === undefined && !(isKept && existsSync(path))) return classical
  try {
    const alternatives = isKept
      ? await openAlternativeKeys({ path, sealer: classical.sealer, random, log })
      : newAlternativeKeysInMemory()
    return withAlternativeKeys(classical, { alternatives, parameterSet })
  } catch (error) {
    await classical[Symbol.asyncDispose]()
    throw error
  }
}

type TokenSettings = Omit<
  Extract<ServerConfig['key_manager'], { readonly kind: 'pkcs11' }>,
  'kind' | 'standby'
>

async function openClassicalKeyManager(
  {
    key_manager: settings,
    trust_domain: trustDomain,
    data_dir: dataDirectory,
    signer_socket_path: signerSocketPath,
  }: ServerConfig,
  { clock, monotonicMs, random, log, metrics }: CatalogDependencies & { readonly metrics: Metrics },
): Promise<KeyManager> {
  switch (settings.kind) {
    case 'pkcs11': {
      const common = { trustDomain, signerSocketPath, clock, monotonicMs, random, log }
      const open = (token: TokenSettings, name: string, suffix: string) =>
        openPkcs11KeyManager({
          ...common,
          name,
          module: token.module,
          tokenLabel: token.token_label,
          tokenSerial: token.token_serial,
          tokenModel: token.token_model,
          tokenManufacturer: token.token_manufacturer,
          pinFile: token.pin_file,
          pinCredential: `hsm-pin${suffix}`,
          sessions: token.sessions,
          refusalFile: join(dataDirectory, `hsm-pin-refused${suffix}`),
          onSignature: (seconds) => metrics.hsmSignature(name, seconds),
        })
      const { standby, token_label: label } = settings
      if (standby === undefined) return await open(settings, label, '')
      const other = standby.token_label === label ? `${label} (standby)` : standby.token_label
      await using opened = new AsyncDisposableStack()
      const first = opened.use(await open(settings, label, ''))
      const second = opened.use(await open(standby, other, '-standby'))
      opened.move()
      const promoteAfter = Temporal.Duration.from({ seconds: standby.promote_after })
      return new TokenPair(first, second, { promoteAfter, monotonicMs })
    }
    case 'disk':
      return await openDiskKeyManager({ path: settings.path, log })
    case 'memory':
      return newMemoryKeyManager()
  }
}

/** The upstream authority the configuration names; undefined: there is none. */
export function newUpstreamAuthority(
  {
    upstream_authority: settings,
    trust_domain: trustDomain,
    data_dir: dataDirectory,
    signer_socket_path: signerSocketPath,
  }: ServerConfig,
  { clock, monotonicMs, random, log }: CatalogDependencies,
): UpstreamAuthority | undefined {
  if (settings === undefined) return undefined
  const { cert_file_path: certFilePath, bundle_file_path: bundleFilePath } = settings
  const common = { certFilePath, bundleFilePath, trustDomain, clock, log }
  switch (settings.kind) {
    case 'disk':
      return newDiskUpstream({ ...common, keyFilePath: settings.key_file_path })
    case 'pkcs11':
      return new Pkcs11Upstream({
        ...common,
        module: settings.module,
        tokenLabel: settings.token_label,
        tokenSerial: settings.token_serial,
        pinFile: settings.pin_file,
        refusalFile: join(dataDirectory, 'hsm-pin-refused-upstream'),
        keyLabel: settings.key_label,
        signerSocketPath,
        monotonicMs,
        random,
      })
  }
}

/** The node attestors the configuration names, by type. */
export async function openNodeAttestors(
  { node_attestors: settings, trust_domain: trustDomain }: ServerConfig,
  { clock, random, log, datastore }: CatalogDependencies & { readonly datastore: Datastore },
): Promise<ReadonlyMap<string, NodeAttestor>> {
  const attestors: NodeAttestor[] = []
  if (settings.tpm !== undefined) {
    const { allow, expiry, tolerate, pcrs } = settings.tpm
    attestors.push(
      createTpmNodeAttestor({
        trustDomain,
        endorsementAuthorities: await loadEndorsementAuthorities(settings.tpm),
        allow,
        expiry,
        pcrs,
        ...(tolerate !== undefined && { toleratedQuirks: tolerate }),
        inventory: new DatastoreTpmInventory(datastore, clock),
        clock,
        random,
        log,
      }),
    )
  }
  if (settings.join_token !== undefined) {
    attestors.push(new JoinTokenAttestor({ trustDomain, tokens: datastore, clock }))
  }
  return new Map(attestors.map((attestor) => [attestor.type, attestor]))
}
