import { AssayError } from '#base/errors.ts'
import { labelPrefixOf } from '#hsm/label-prefix.ts'
import type { OpenRequest } from '#hsm/protocol.ts'
import type { PermittedToken } from '#hsm/signer/signer.ts'
import type { ServerConfig } from '#server/config.ts'

/** A token a server may have opened, and where its PIN is unless systemd passes it. */
interface ConfiguredToken
  extends Omit<PermittedToken, 'spendFinalTry' | 'pinFile' | 'pinIsCredential'> {
  readonly pinFile: string | undefined
  readonly pinCredential: string
}

/** The tokens that `config` names, each with the labels of the keys that are used on it. */
function tokensOf(config: ServerConfig): readonly ConfiguredToken[] {
  const { key_manager: keys, upstream_authority: upstream, trust_domain: trustDomain } = config
  const tokens: ConfiguredToken[] = []
  if (keys.kind === 'pkcs11') {
    const labelPrefix = labelPrefixOf(trustDomain)
    for (const [token, pinCredential] of [
      [keys, 'hsm-pin'],
      [keys.standby, 'hsm-pin-standby'],
    ] as const) {
      if (token === undefined) continue
      tokens.push({
        module: token.module,
        tokenLabel: token.token_label,
        tokenSerial: token.token_serial,
        tokenModel: token.token_model,
        tokenManufacturer: token.token_manufacturer,
        labelPrefix,
        sessions: token.sessions,
        pinFile: token.pin_file,
        pinCredential,
      })
    }
  }
  if (upstream?.kind === 'pkcs11') {
    tokens.push({
      module: upstream.module,
      tokenLabel: upstream.token_label,
      tokenSerial: upstream.token_serial,
      labelPrefix: upstream.key_label,
      sessions: 1,
      // A CA of others, which outlives this server.
      isForSigningAlone: true,
      pinFile: upstream.pin_file,
      pinCredential: 'upstream-hsm-pin',
    })
  }
  return tokens
}

const named = [
  'module',
  'tokenLabel',
  'tokenSerial',
  'tokenModel',
  'tokenManufacturer',
  'labelPrefix',
] as const

/**
 * What is opened when a server asks for `request`: a token of `config`, the PIN from where `config` says. Of the request
 * itself only the operator's word is taken that a last try may be spent. So a server that was taken over can have no
 * library loaded and no file read but those the configuration names, uses no keys of other labels, and cannot destroy the key
 * of the CA above it.
 *
 * @throws AssayError `failed-precondition` when `config` has no such token, or no PIN for it.
 */
export function permittedToken(
  request: OpenRequest,
  config: ServerConfig,
  credentialPath: (name: string) => string | undefined,
): PermittedToken {
  const token = tokensOf(config).find((one) => named.every((name) => one[name] === request[name]))
  if (token === undefined) {
    throw new AssayError(
      'failed-precondition',
      `the signer's configuration has no such token "${request.tokenLabel}": after a change of it restart assay-server`,
    )
  }
  const { pinCredential, ...opened } = token
  const pinFile = token.pinFile ?? credentialPath(pinCredential)
  if (pinFile === undefined) {
    throw new AssayError(
      'failed-precondition',
      `no pin_file is set and systemd passes assay-signer no credential ${pinCredential}`,
    )
  }
  const pinIsCredential = token.pinFile === undefined
  return { ...opened, pinFile, pinIsCredential, spendFinalTry: request.spendFinalTry }
}
