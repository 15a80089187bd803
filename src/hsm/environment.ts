import process from 'node:process'

/**
 * The variables a PKCS#11 module may be configured by. Nothing else of the server's environment reaches the
 * signer: not NODE_OPTIONS, and no secret somebody put there.
 */
const passed = [
  'HOME',
  'LANG',
  'LC_ALL',
  'LD_LIBRARY_PATH',
  'OPENSSL_CONF',
  'PATH',
  'TMPDIR',
  'TZ',
  'SOFTHSM2_CONF',
  'KRYOPTIC_CONF',
  'P11_KIT_SYSTEM_CONFIG',
  'PKCS11_PROXY_SOCKET',
  'TPM2_PKCS11_STORE',
  'YUBIHSM_PKCS11_CONF',
  'ChrystokiConfigurationPath', // Thales Luna
  'CS_PKCS11_R3_CFG', // Utimaco
  'CKNFAST_LOADSHARING', // Entrust nShield
  'NFAST_HOME',
] as const

/** The part of this process's environment that the signer gets. */
export function signerEnvironment(): Record<string, string> {
  const environment: Record<string, string> = {}
  for (const name of passed) {
    const value = variable(name)
    if (value !== undefined) environment[name] = value
  }
  return environment
}

/** Where systemd puts a credential for this service (systemd.exec(5), LoadCredential=), if it does. */
export function credentialPath(name: string): string | undefined {
  const directory = variable('CREDENTIALS_DIRECTORY')
  return directory === undefined ? undefined : `${directory}/${name}`
}

function variable(name: string): string | undefined {
  // biome-ignore lint/style/noProcessEnv: modules and systemd speak through variables; these two lists name which
  return process.env[name]
}
