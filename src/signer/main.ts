/**
 * assay-signer as a service of its own: systemd starts one for each connection of the server, which is descriptor 3
 * (`packaging/systemd/assay-signer@.service`). It opens the tokens that its configuration names, and no others.
 */
import { fstatSync, readFileSync } from 'node:fs'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { AssayError, messageOf } from '#base/errors.ts'
import { version } from '#base/version.ts'
import { parseConfig } from '#config/parse-config.ts'
import { credentialPath } from '#hsm/environment.ts'
import type { OpenRequest } from '#hsm/protocol.ts'
import { serveSigner } from '#hsm/signer/serve.ts'
import type { PermittedToken } from '#hsm/signer/signer.ts'
import { type ServerConfig, serverConfigSchema } from '#server/config.ts'
import { permittedToken } from './permitted-tokens.ts'

const usage = `assay-signer ${version}: the keys of an authority, behind a socket

  assay-signer --config FILE   serve the connection at descriptor 3, as systemd passes it; FILE is server.yaml

  --help      this text
  --version   the version

Exit status 2: somebody has to put something right first.`

const needsOperator = 2

const parse = (args: readonly string[]) =>
  parseArgs({
    args: [...args],
    options: {
      config: { type: 'string', short: 'c' },
      help: { type: 'boolean', short: 'h', default: false },
      version: { type: 'boolean', default: false },
    },
  }).values

/** Not with promises: a thread of libuv's pool would then be started before it is known how many there are to be. */
function loadServerConfig(file: string): ServerConfig {
  try {
    return parseConfig(serverConfigSchema, readFileSync(file, 'utf8'), { file })
  } catch (cause) {
    const message = `assay-signer cannot use ${file}: ${messageOf(cause)}`
    throw new AssayError('failed-precondition', message, { cause })
  }
}

function permit(file: string, request: OpenRequest): PermittedToken {
  const token = permittedToken(request, loadServerConfig(file), credentialPath)
  // biome-ignore lint/style/noProcessEnv: libuv reads it when its pool is first used, which is after this
  process.env['UV_THREADPOOL_SIZE'] = String(token.sessions + 1)
  return token
}

function isConnected(): boolean {
  try {
    return fstatSync(3).isSocket()
  } catch {
    return false
  }
}

function main(args: readonly string[]): number {
  let values: ReturnType<typeof parse>
  try {
    values = parse(args)
  } catch (error) {
    console.error(`assay-signer: ${messageOf(error)}\n\n${usage}`)
    return needsOperator
  }
  if (values.help || values.version) {
    console.log(values.help ? usage : version)
    return 0
  }
  const { config: file } = values
  if (file === undefined || !isConnected()) {
    const what = file === undefined ? '--config FILE is missing' : 'descriptor 3 is no connection'
    console.error(`assay-signer: ${what}; it is started by assay-signer.socket`)
    return needsOperator
  }
  serveSigner((request) => permit(file, request))
  return 0
}

process.exitCode = main(process.argv.slice(2))
