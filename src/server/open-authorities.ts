import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { attributeType, type NameAttribute } from '#pki/name.ts'
import type { Audit } from '#telemetry/audit.ts'
import type { Metrics } from '#telemetry/metrics.ts'
import { AuthorityManager, type AuthorityManagerOptions } from './authority/authority-manager.ts'
import { pqParameterSet, type ServerConfig } from './config.ts'
import type { UpstreamAuthority } from './plugin/upstream-authority/upstream-authority.ts'

/** What the authorities need beside their settings. */
export interface AuthorityDependencies
  extends Pick<
    AuthorityManagerOptions,
    'datastore' | 'keyManager' | 'holders' | 'serverName' | 'svidDefaults'
  > {
  readonly upstreamAuthority: UpstreamAuthority | undefined
  readonly audit: Audit
  readonly metrics: Metrics
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/**
 * Opens the authorities as the configuration wants them. Each event is counted, and is an audit record.
 *
 * @throws AssayError that says what to do; what is wrong with the upstream authority, when nothing can be signed
 * without it.
 */
export async function openAuthorities(
  config: ServerConfig,
  { audit, metrics, log, ...dependencies }: AuthorityDependencies,
): Promise<AuthorityManager> {
  using opened = new DisposableStack()
  const authorities = opened.use(
    await AuthorityManager.open({
      ...dependencies,
      log: log.child({ component: 'authority' }),
      onEvent: ({ kind, what, authorityId }) => {
        // That it can sign again changes nothing.
        if (what === 'usable') return
        if (what === 'promoted') metrics.authorityPromoted(kind)
        audit.change({ action: `authority-${what}`, subject: authorityId, details: { kind } })
      },
      trustDomain: config.trust_domain,
      caTtlSeconds: config.ca_ttl,
      caKeyType: config.ca_key_type,
      jwtKeyType: config.jwt_key_type,
      pqParameterSet: pqParameterSet(config),
      caSubject: caSubject(config.ca_subject),
      propagationDelaySeconds: config.propagation_delay,
      refreshHintSeconds: 300,
    }),
  )
  if (!authorities.states('x509').some(({ state }) => state === 'active')) {
    // Nothing that was certified before can be signed with either: whoever starts it is told what is wrong.
    await dependencies.upstreamAuthority?.current()
  }
  opened.move()
  return authorities
}

function caSubject(settings: ServerConfig['ca_subject']): readonly NameAttribute[] {
  const { country, organization, common_name } = settings
  return [
    ...country.map((value) => ({ type: attributeType.country, value })),
    ...organization.map((value) => ({ type: attributeType.organization, value })),
    ...(common_name === undefined ? [] : [{ type: attributeType.commonName, value: common_name }]),
  ]
}
