import { EntryMask } from '#rpc/gen/spire/api/types/entry.ts'
import {
  all,
  type CommandContext,
  choice,
  epochSeconds,
  isOn,
  type Option,
  optional,
  seconds,
} from './command.ts'
import { wireId, wireSelectors } from './wire.ts'

/** Options for the fields that an entry may leave out. */
export const fieldOptions: readonly Option[] = [
  {
    name: 'x509-svid-ttl',
    value: 'DURATION',
    summary: "life of its X.509-SVIDs; the server's default when absent",
  },
  {
    name: 'jwt-svid-ttl',
    value: 'DURATION',
    summary: "life of its JWT-SVIDs; the server's default when absent",
  },
  {
    name: 'federates-with',
    value: 'TRUST-DOMAIN',
    multiple: true,
    summary: 'also gets the bundle of this trust domain',
  },
  {
    name: 'dns',
    value: 'NAME',
    multiple: true,
    summary: 'DNS name in its X.509-SVIDs; the first is the common name too',
  },
  {
    name: 'hint',
    value: 'TEXT',
    summary: 'tells identities of a workload apart; pq or pq:NAME: post-quantum too',
  },
  {
    name: 'entry-expiry',
    value: 'TIME',
    summary: 'when the entry is removed, as 2026-01-31T12:00:00Z or Unix time; never when absent',
  },
  { name: 'admin', summary: 'may call the administration API over the network' },
  { name: 'downstream', summary: 'is a server of the same trust domain below this one' },
  { name: 'store-svid', summary: 'the agent stores its SVID in a secret store' },
  { name: 'disable-x509-svid-prefetch', summary: 'the agent signs only when the workload asks' },
  { name: 'jwt-svid-include-jti', summary: 'each JWT-SVID is unique and never cached' },
]

const matches = { exact: 0, subset: 1, superset: 2, any: 3 } as const
const matchNames = ['superset', 'exact', 'subset', 'any'] as const

/** Options that choose among entries. */
export const filterOptions: readonly Option[] = [
  { name: 'spiffe-id', value: 'ID', summary: 'only entries for this identity' },
  { name: 'parent-id', value: 'ID', summary: 'only entries below this agent or identity' },
  {
    name: 'selector',
    value: 'TYPE:VALUE',
    multiple: true,
    summary: 'only entries with these selectors',
  },
  {
    name: 'match-selectors-on',
    value: 'HOW',
    choices: matchNames,
    summary: 'superset (has all of them, default), exact, subset (has no others), any (has one)',
  },
  {
    name: 'federates-with',
    value: 'TRUST-DOMAIN',
    multiple: true,
    summary: 'only entries that federate with it',
  },
  { name: 'hint', value: 'TEXT', summary: 'only entries with this hint' },
  { name: 'downstream', summary: 'only downstream entries' },
]

/** What {@link filterOptions} choose. */
export function filterOf(context: CommandContext) {
  const spiffeId = optional(context, 'spiffe-id')
  const parentId = optional(context, 'parent-id')
  const selectors = all(context, 'selector')
  const trustDomains = all(context, 'federates-with')
  const match = matches[choice(context, 'match-selectors-on', matchNames)]
  return {
    bySpiffeId: spiffeId === undefined ? undefined : wireId(spiffeId),
    byParentId: parentId === undefined ? undefined : wireId(parentId),
    bySelectors:
      selectors.length === 0 ? undefined : { selectors: wireSelectors(selectors), match },
    byFederatesWith:
      trustDomains.length === 0
        ? undefined
        : { trustDomains: [...trustDomains], match: matches.superset },
    byHint: optional(context, 'hint'),
    byDownstream: context.switches.get('downstream'),
  }
}

/** Every value of an option that may be repeated. An empty one is how a list is cleared. */
const texts = (context: CommandContext, name: string): string[] =>
  all(context, name).filter((value) => value !== '')

/** What {@link fieldOptions} set; what is not given has its default. */
export function fieldsOf(context: CommandContext) {
  return {
    x509SvidTtl: seconds(context, 'x509-svid-ttl', 0),
    jwtSvidTtl: seconds(context, 'jwt-svid-ttl', 0),
    federatesWith: texts(context, 'federates-with'),
    dnsNames: texts(context, 'dns'),
    hint: optional(context, 'hint') ?? '',
    expiresAt: epochSeconds(context, 'entry-expiry'),
    admin: isOn(context, 'admin'),
    downstream: isOn(context, 'downstream'),
    storeSvid: isOn(context, 'store-svid'),
    additionalAttributes: {
      disableX509SvidPrefetch: isOn(context, 'disable-x509-svid-prefetch'),
      jwtSvidIncludeJti: isOn(context, 'jwt-svid-include-jti'),
    },
  }
}

/** The fields of an entry that were given, and whether the additional attributes are among them. */
export function maskOf({ values, switches }: CommandContext): EntryMask {
  return EntryMask.create({
    spiffeId: values.has('spiffe-id'),
    parentId: values.has('parent-id'),
    selectors: values.has('selector'),
    x509SvidTtl: values.has('x509-svid-ttl'),
    jwtSvidTtl: values.has('jwt-svid-ttl'),
    federatesWith: values.has('federates-with'),
    dnsNames: values.has('dns'),
    hint: values.has('hint'),
    expiresAt: values.has('entry-expiry'),
    admin: switches.has('admin'),
    downstream: switches.has('downstream'),
    storeSvid: switches.has('store-svid'),
    additionalAttributes:
      switches.has('disable-x509-svid-prefetch') || switches.has('jwt-svid-include-jti'),
  })
}
